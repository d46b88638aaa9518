"""The verbs of a registry for tokens: ``registry.tokens``.

Called by applications and by the commands for tokens, through an open registry; calls ``core/secrets.py``, the vault
and the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import arguments
from ..crypto.vault import Vault
from ..errors import InvalidInput
from ..system.descriptor_shortage import translate_shortage

if TYPE_CHECKING:
    from ..engines.sql.engine import Engine
    from ..model import TokenInfo

DEFAULT_OVERLAP_SEC = 3600.0


class Tokens:
    """The verbs for the tokens of jobs. A token is the key that signs one job's events."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @translate_shortage
    def show(self, job_id: str, *, kid: int | None = None) -> str:
        """Return a job's token in clear text. Anyone who has it can publish for the job.

        Args:
            job_id: the id of the job.
            kid: the version of the token; the current one if None.

        Raises:
            UnknownJob: there is no job with that id.
            InvalidInput: the job has no such token.
            KeyProblem: the master key is missing or is a different one.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> first = registry.tokens.show("sort-1")
            >>> registry.tokens.rotate("sort-1")
            2
            >>> registry.tokens.show("sort-1", kid=1) == first
            True
        """
        if kid is not None:
            kid = arguments.kid(kid)
        _kid, token = self._engine.token(arguments.job_id(job_id), kid=kid)
        return token

    @translate_shortage
    def current(self, job_id: str) -> tuple[int, str]:
        """Return the version and the clear text of a job's current token, which signs new events.

        Args:
            job_id: the id of the job.

        Raises:
            UnknownJob: there is no job with that id.
            InvalidInput: the job has no token.
            KeyProblem: the master key is missing or is a different one.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> kid, token = registry.tokens.current("sort-1")
            >>> kid, token == registry.tokens.show("sort-1")
            (1, True)
        """
        return self._engine.token(arguments.job_id(job_id), kid=None)

    @translate_shortage
    def list(self, job_id: str) -> list[TokenInfo]:
        """Return the tokens of a job without the secrets, oldest first.

        Args:
            job_id: the id of the job.

        Raises:
            UnknownJob: there is no job with that id.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> [(token.kid, token.state) for token in registry.tokens.list("sort-1")]
            [(1, 'current')]
        """
        return self._engine.tokens(arguments.job_id(job_id))

    @translate_shortage
    def rotate(self, job_id: str, *, overlap_sec: float = DEFAULT_OVERLAP_SEC, token: str | None = None) -> int:
        """Give a job a new token; events signed with an old one are accepted until the overlap ends.

        Args:
            job_id: the id of the job.
            overlap_sec: the length of the overlap, in seconds; 0 means none.
            token: the new token; generated if None, which is safer.

        Returns:
            The version of the new token (``hmac_kid``).

        Raises:
            UnknownJob: there is no job with that id.
            IllegalTransition: the job has ended.
            InvalidInput: the given token is too short, or the job had it before.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> registry.tokens.rotate("sort-1", overlap_sec=600)
            2
            >>> [(token.kid, token.state) for token in registry.tokens.list("sort-1")]
            [(1, 'overlap'), (2, 'current')]
        """
        overlap_sec = arguments.seconds("overlap_sec", overlap_sec, most=arguments.MAX_LEASE_SEC)
        overlap_ms = arguments.seconds_as_ms("overlap_sec", overlap_sec) if overlap_sec else 0
        if token is not None:
            from ..core.secrets import check_token

            check_token(token)
        return self._engine.rotate_token(arguments.job_id(job_id), overlap_ms=overlap_ms, token=token)

    @translate_shortage
    def revoke(self, job_id: str, kid: int) -> bool:
        """Revoke a token, so that no event signed with it is accepted any more.

        Args:
            job_id: the id of the job.
            kid: the version of the token.

        Returns:
            True if it was the current token: no event can then be published about the job until :meth:`rotate`.

        Raises:
            UnknownJob: there is no job with that id.
            InvalidInput: the job has no such token.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> registry.tokens.rotate("sort-1")
            2
            >>> registry.tokens.revoke("sort-1", 1)
            False
        """
        return self._engine.revoke_token(arguments.job_id(job_id), kid=arguments.kid(kid))

    @translate_shortage
    def rekey(self, new: Vault) -> int:
        """Seal every token and broker password under another master key, in one transaction.

        Args:
            new: the vault with the new master key.

        Returns:
            The number of secrets that were resealed.

        Raises:
            KeyProblem: the current master key is missing or is a different one.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> registry.tokens.rekey(Vault.open(env={"JOBDB_KEY": "07" * 32}))
            1
        """
        if not isinstance(new, Vault):
            raise InvalidInput(f"the new vault must be a Vault, not {type(new).__name__}")
        return self._engine.rekey(new)
