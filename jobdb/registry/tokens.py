"""The token verbs of a registry (FW-N6): ``registry.tokens``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import arguments
from ..core.secrets import check_token
from ..crypto.vault import Vault
from ..errors import InvalidInput
from ..system.descriptor_shortage import translate_shortage

if TYPE_CHECKING:
    from ..engines.sql.engine import Engine
    from ..model import TokenInfo

DEFAULT_OVERLAP_SEC = 3600.0


@translate_shortage
class Tokens:
    """The tokens of a registry's jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def show(self, job_id: str, *, kid: int | None = None) -> str:
        """A job's token in clear: the present one, or the one of that version.

        Raises:
            UnknownJob: there is none of that id.
            InvalidInput: the job has no such token.
            KeyProblem: the master key is missing or another.
        """
        if kid is not None:
            kid = arguments.integer("kid", kid, least=1, most=2**31 - 1)
        return self._engine.token(arguments.job_id(job_id), kid=kid)[1]

    def present(self, job_id: str) -> tuple[int, str]:
        """The version and the text of the token that signs a job's events now."""
        return self._engine.token(arguments.job_id(job_id), kid=None)

    def list(self, job_id: str) -> list[TokenInfo]:
        """A job's tokens, without the secrets."""
        return self._engine.tokens(arguments.job_id(job_id))

    def rotate(self, job_id: str, *, overlap_sec: float = DEFAULT_OVERLAP_SEC, token: str | None = None) -> int:
        """Gives a job a new token; the old ones stay valid for ``overlap_sec`` seconds.

        Returns:
            The new token's version number (``hmac_kid``).

        Raises:
            UnknownJob: there is none of that id.
            IllegalTransition: the job has ended.
            InvalidInput: the given token is too short, or the job had it before.
        """
        overlap_sec = arguments.seconds("overlap_sec", overlap_sec, most=arguments.MAX_LEASE_SEC)
        overlap_ms = arguments.seconds_as_ms("overlap_sec", overlap_sec) if overlap_sec else 0
        if token is not None:
            check_token(token)
        return self._engine.rotate_token(arguments.job_id(job_id), overlap_ms=overlap_ms, token=token)

    def revoke(self, job_id: str, kid: int) -> bool:
        """Makes a token invalid at once.

        Returns:
            Whether it was the present one: then the job cannot be published to until ``rotate``.
        """
        kid = arguments.integer("kid", kid, least=1, most=2**31 - 1)
        return self._engine.revoke_token(arguments.job_id(job_id), kid=kid)

    def rekey(self, new: Vault) -> int:
        """Seals every token and broker password anew under another master key, in one transaction.

        Returns:
            How many secrets were sealed anew.
        """
        if not isinstance(new, Vault):
            raise InvalidInput(f"the new vault must be a Vault, not {type(new).__name__}")
        return self._engine.rekey(new)
