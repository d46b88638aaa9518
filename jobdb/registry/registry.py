""":class:`Registry`, the public interface of the library, and opening it.

Called by applications and by everything that opens a database; calls the URL, the trust, the vault and the engine's
``open``. It has no verbs of its own: they are inherited.

``with Registry.open("sqlite:///.jobdb/jobs.db", create=True) as registry: …``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import arguments
from ..crypto.vault import Vault
from ..errors import InvalidInput
from ..model.times import now_ms
from ..urls import DatabaseUrl, default_url, parse_url, require_current_folder
from .claims import ClaimVerbs
from .events import EventVerbs
from .jobs import JobVerbs
from .questions import QuestionVerbs
from .subscribers import SubscriberVerbs
from .tokens import Tokens
from .workers import WorkerVerbs

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ..engines.sql.engine import Engine
    from ..model import Durability

DEFAULT_BUSY_SEC = 30.0


class Registry(JobVerbs, ClaimVerbs, WorkerVerbs, QuestionVerbs, EventVerbs, SubscriberVerbs):
    """The job registry. Open it with :meth:`open`; share it between threads, not across a fork.

    A forked child cannot open a SQLite database that its parent had open (ForkedRegistry is raised): open it in each
    process after the fork, or start processes with spawn or forkserver. On PostgreSQL, open a new one in the child.

    Attributes:
        engine: the engine, for tools that need a verb that this class does not have.
        store: the open database under the engine, for tools that run their own statements.
        url: the URL of its database.
        tokens: the verbs for the tokens of jobs: show, current, list, rotate, revoke, rekey.

    Example:
        >>> with Registry.open(f"sqlite:///{folder}/jobs.db", create=True) as registry:
        ...     job = registry.register(agent="codex", prompt="sort ten problems", job_id="sort-1")
        ...     print(job.status)
        pending
    """

    def __init__(self, engine: Engine, url: DatabaseUrl) -> None:
        super().__init__(engine, url)
        self.tokens = Tokens(engine)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str] | None = None,
        *,
        create: bool = False,
        durability: Durability = "full",
        busy_timeout_sec: float = DEFAULT_BUSY_SEC,
        vault: Vault | None = None,
        clock: Callable[[], int] = now_ms,
        checkpoint_pages: int = 1000,
    ) -> Registry:
        """Open a registry.

        Args:
            url: ``sqlite:///FILE``, ``postgresql://…`` or a file name; ``$JOBDB_URL`` or the default if None.
            create: True to create the database if there is none.
            durability: "full": every commit that a verb reported survives a power failure; "normal": it survives the
                death of the process, but a power failure may undo the last commits.
            busy_timeout_sec: how long a writer waits for its turn, in seconds.
            vault: seals the tokens; with the master key of this user or service if None.
            clock: returns the Unix time in milliseconds, for tests. PostgreSQL uses the server's clock.
            checkpoint_pages: the length of SQLite's WAL, in pages, from which it is copied into the database.

        Returns:
            The registry, a context manager that closes it.

        Raises:
            InvalidInput: an argument is invalid.
            DatabaseMissing: there is no database and ``create`` is False.
            NotAJobdbDatabase: the file is not a jobdb database.
            SchemaMismatch: the schema is older or newer than this jobdb; the message names the fix.
            UntrustedDatabase: no URL was given, and the database in the current folder is not known to be this user's.
            UnsafeFileSystem: the file system of the folder cannot hold the database safely.
            StorageFailed: the disk is full, failed, or is not writable.
            Unavailable: the database server cannot be reached.

        Example:
            >>> with Registry.open(folder / "jobs.db", create=True, busy_timeout_sec=5) as registry:
            ...     registry.count_by_status()[JobStatus.PENDING]
            0
        """
        durability = arguments.durability(durability)
        busy_sec = arguments.seconds_as_ms("busy_timeout_sec", busy_timeout_sec) / 1000
        place = parse_url(default_url() if url is None else url)
        require_current_folder(place)
        arguments.flag("create", create)
        if vault is not None and not isinstance(vault, Vault):
            raise InvalidInput(f"vault must be a Vault, not {type(vault).__name__}")
        if url is None:
            _require_trust()
        from ..engines.open import open_engine

        engine = open_engine(
            place,
            create=create,
            durability=durability,
            busy_sec=busy_sec,
            vault=vault or Vault.open(),
            clock=clock,
            checkpoint_pages=arguments.integer("checkpoint_pages", checkpoint_pages, least=1, most=10**6),
        )
        return cls(engine, place)


def _require_trust() -> None:
    from ..engines.trust import default_database_path, require_trust

    found = default_database_path()
    if found is not None:
        require_trust(found)
