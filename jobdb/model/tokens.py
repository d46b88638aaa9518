"""A token's life, without the token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .times import format_time


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token's life, without the token."""

    job_id: str
    kid: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    imported: bool
    state: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "job_id": self.job_id,
            "kid": self.kid,
            "state": self.state,
            "created_at": format_time(self.created_at),
            "expires_at": format_time(self.expires_at),
            "revoked_at": format_time(self.revoked_at),
            "imported": self.imported,
        }
