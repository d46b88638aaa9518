"""The record of a token, without its secret.

Used by the verbs for tokens, as a name of ``jobdb.model``; imports only its neighbours here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .times import format_time

if TYPE_CHECKING:
    from .literals import TokenState


@dataclass(frozen=True, slots=True, repr=False)
class TokenInfo:
    """A job's token without its secret.

    Attributes:
        job_id: the id of its job.
        kid: its version number.
        created_at: when it was created.
        expires_at: when its overlap after a rotation ends; None if it was not rotated.
        revoked_at: when it was revoked; None if it was not.
        imported: True if it comes from a registry of JSON files.
        state: "current" if it signs new events, "overlap" if events signed with it are still accepted, "expired" if
            they no longer are, "revoked" if it was revoked.
    """

    job_id: str
    kid: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    imported: bool
    state: TokenState

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self)

    def as_dict(self) -> dict[str, Any]:
        """Return this as JSON-ready values, under the stable names of the command line's --json."""
        return {
            "job_id": self.job_id,
            "kid": self.kid,
            "state": self.state,
            "created_at": format_time(self.created_at),
            "expires_at": format_time(self.expires_at),
            "revoked_at": format_time(self.revoked_at),
            "imported": self.imported,
        }
