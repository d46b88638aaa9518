"""The old registry module's functions, working on the database: scripts change one import.

    from jobdb.legacy import registry            # was: import job_registry as registry
    job = registry.register_job(".mam/jobs", agent="codex", prompt="sort ten problems")

Records are dicts of the old shape, token included, because the old scripts sign with it. Shell callers use
``python -m jobdb.legacy.registry``, which shows no token unless asked. New code uses `jobdb.Registry` instead.
"""

from __future__ import annotations

from .statements import LEGACY

if __name__ == "__main__":
    from ..system.isolated_python import remove_cwd_from_sys_path

    remove_cwd_from_sys_path()  # -m has put it before everything else, and a workspace is for agents to write to

import atexit
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.lifecycle import TRANSITIONS
from ..errors import IllegalTransition, InvalidInput, UnknownJob
from ..filesystem.permissions import make_private_folder
from ..model import Broker, JobStatus
from .importer import DEFAULT_LOCK_TIMEOUT_SEC
from .layout import WORKSPACE_FOLDERS
from .lock import registry_lock as _hold_lock
from .rows import JobRow, record_from_row
from .state import STATE_FIELD

if TYPE_CHECKING:
    from ..engines.store import Transaction
    from ..registry import Registry

Json = Any
Record = dict[str, Json]
Folder = str | os.PathLike[str]

_PAGE = 500
_MANAGED_FIELDS = frozenset(
    {
        "schema_version",
        "status",
        "created_at",
        "updated_at",
        "last_seq",
        STATE_FIELD,  # an export's; the new job has a state of its own
    }
)
_ACCEPTED_FIELDS = (
    "agent",
    "prompt",
    "job_id",
    "agent_session",
    "broker",
    "topic_prefix",
    "timeout_sec",
    "idle_timeout_sec",
    "expected_artifacts",
    "auth_token",
)
_open_registries: dict[tuple[str, int], Registry] = {}


class NoSuchJob(FileNotFoundError, UnknownJob):
    """No job of that id: what the old module raised, and what jobdb raises."""

    def __init__(self, job_id: str) -> None:
        UnknownJob.__init__(self, job_id)

    __reduce__ = UnknownJob.__reduce__  # OSError's would call the class with its message


def database_url(registry_dir: Folder) -> str:
    """The database that stands in for a registry folder: ``$JOBDB_URL``, else ``.jobdb/jobs.db`` in its workspace."""
    given = os.environ.get("JOBDB_URL")
    if given:
        return given
    folder = Path(registry_dir).absolute()
    if folder.name == "jobs" and folder.parent.name in WORKSPACE_FOLDERS:
        folder = folder.parent.parent
    return f"sqlite:///{folder / '.jobdb' / 'jobs.db'}"


def open_registry(registry_dir: Folder) -> Registry:
    """The registry behind a folder; opened once in a process.

    Raises:
        DatabaseMissing: there is no database yet; the message names the command that makes one.
    """
    from ..registry import Registry

    url = database_url(registry_dir)
    key = (url, os.getpid())
    if key not in _open_registries:
        registry = Registry.open(url)
        LEGACY.load()
        _close_before_forks()
        _open_registries[key] = registry
    return _open_registries[key]


@cache
def _close_before_forks() -> None:
    """Lets children that are forked open the database for themselves, as the old scripts' children could.

    SQLite forbids it while the parent has it open. Registered late: what it closes must not be at rest for the fork.
    """
    os.register_at_fork(before=_close_idle)


def _close_idle() -> None:
    """Closes what is open, to be opened again at need; with other threads about, one may be using it."""
    if threading.active_count() == 1:
        _close_all()
        _open_registries.clear()


def registry_lock(registry_dir: Folder, timeout: float = DEFAULT_LOCK_TIMEOUT_SEC) -> AbstractContextManager[object]:
    """Take the old lock of the folder, to be held in a ``with`` block. No function here needs it; it keeps out scripts
    that still write files.

    Args:
        registry_dir: the folder of records; made if it is missing.
        timeout: how long to wait, in seconds.

    Raises:
        Busy: the wait reached its limit; says who holds the lock, where that can be known.
    """
    make_private_folder(registry_dir)
    return _hold_lock(Path(registry_dir), timeout_sec=timeout, create=True)


def register_job(registry_dir: Folder, record: Mapping[str, Json] | None = None, **fields: Json) -> Record:
    """Records a new pending job. It always gets a token.

    Args:
        registry_dir: the folder of records.
        record: fields of the old record; what the registry sets itself (status, times, last_seq) is not taken.
        fields: the same one by one; they win. Unknown ones are kept.

    Returns:
        The record.

    Raises:
        InvalidInput: a field is missing or is not what it should be.
        AlreadyExists: there is a job of that id.
    """
    if record is not None and not isinstance(record, Mapping):
        raise InvalidInput(f"record must be a dict of a job's fields, not {type(record).__name__}")
    given = {**(record or {}), **fields}
    for name in ("agent", "prompt"):
        if given.get(name) is None:
            raise InvalidInput(f"a job needs {name}; give it as {name}=…")
    job_id = given.get("job_id") or secrets.token_hex(4)
    broker, password = _broker(given.get("broker"))
    arguments = {name: given[name] for name in _ACCEPTED_FIELDS if given.get(name) is not None}
    arguments |= {"job_id": job_id, "broker": broker, "broker_password": password}
    arguments.setdefault("topic_prefix", f"python/mqtt/jobs/{job_id}")
    extra = {
        name: value for name, value in given.items() if name not in _ACCEPTED_FIELDS and name not in _MANAGED_FIELDS
    }
    open_registry(registry_dir).register(**arguments, extra=extra)
    return load_job(registry_dir, job_id)


def load_job(registry_dir: Folder, job_id: str) -> Record:
    """One job's record.

    Raises:
        NoSuchJob: there is none; also a FileNotFoundError, as it was.
    """
    registry = open_registry(registry_dir)
    with registry.engine.store.read() as tx:
        row = _row(tx, job_id)
    return record_from_row(row, registry.engine.vault).as_document()


def list_jobs(registry_dir: Folder, status: str | None = None, agent: str | None = None) -> list[Record]:
    """The records of all jobs, or of those with a status or an agent, in the order in which they were recorded."""
    registry = open_registry(registry_dir)
    found = []
    after = 0
    with registry.engine.store.read() as tx:
        while numbers := [row[0] for row in tx.all(LEGACY.legacy_page, after=after, limit=_PAGE)]:
            for values in tx.all(LEGACY.legacy_jobs, first=numbers[0], last=numbers[-1]):
                row = JobRow(*values)
                if status in (None, row.status) and agent in (None, row.agent):
                    found.append(record_from_row(row, registry.engine.vault).as_document())
            after = numbers[-1]
    return found


def pick_pending(registry_dir: Folder, agent: str | None = None, agent_session: str | None = None) -> Record | None:
    """Takes the oldest pending job, for an agent or a session of it: it is running then, and nobody else gets it.

    Returns:
        The record; None if nothing is pending. As before there is no lease: whoever picks a job keeps it.
    """
    registry = open_registry(registry_dir)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    claim = registry.claim(worker=worker, agent=agent, agent_session=agent_session, lease_sec=None)
    return None if claim is None else load_job(registry_dir, claim.job_id)


def update_status(registry_dir: Folder, job_id: str, status: str) -> Record:
    """Says what has become of a job. No event is recorded: the old agents send theirs themselves.

    Raises:
        NoSuchJob: there is no such job.
        InvalidInput: there is no such status.
        IllegalTransition: the job has ended, and otherwise.
    """
    if status not in list(JobStatus):
        raise InvalidInput(f"there is no status {status!r:.40}; they are {', '.join(JobStatus)}")
    target = JobStatus(status)
    registry = open_registry(registry_dir)
    with registry.engine.store.write() as tx:
        row = _row(tx, job_id)
        current = JobStatus(row.status)
        if target is not current:
            if not any(before is current and after is target for (before, _), after in TRANSITIONS.items()):
                raise IllegalTransition(f"job {job_id} is {current} and cannot become {target}")
            tx.run(
                LEGACY.legacy_set_status,
                job=row.number,
                status=target.value,
                now=tx.now_ms,
                started_ms=tx.now_ms if target is JobStatus.RUNNING else None,
                finished_ms=tx.now_ms if target.terminal else None,
                terminal_seq=row.last_seq if target.terminal else None,
            )
    return load_job(registry_dir, job_id)


def next_seq(registry_dir: Folder, job_id: str) -> int:
    """The number for an event that the caller sends to the broker itself. Each call gives out a new one.

    `jobdb.Registry.publish` numbers, signs and records an event in one step: prefer it.

    Raises:
        NoSuchJob: there is no such job.
    """
    with open_registry(registry_dir).engine.store.write() as tx:
        row = tx.one(LEGACY.legacy_next_seq, job_id=job_id, now=tx.now_ms)
    if row is None:
        raise NoSuchJob(job_id)
    seq: int = row[0]
    return seq


def _row(tx: Transaction, job_id: str) -> JobRow:
    row = tx.one(LEGACY.legacy_job, job_id=job_id)
    if row is None:
        raise NoSuchJob(job_id)
    return JobRow(*row)


def _broker(given: Json) -> tuple[Broker | None, str | None]:
    if given is None or isinstance(given, Broker):
        return given, None
    if not isinstance(given, Mapping) or "host" not in given:
        raise InvalidInput("broker must be a dict with a host, or None")
    known = {name: given[name] for name in ("host", "port", "tls", "username") if given.get(name) is not None}
    return Broker(**known), given.get("password")


@atexit.register
def _close_all() -> None:
    for (_, pid), registry in _open_registries.items():
        if pid == os.getpid():
            registry.close(checkpoint=False)


if __name__ == "__main__":
    from .shell import main

    raise SystemExit(main())
