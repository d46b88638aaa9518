"""Wire events as an agent would sign them, made without the registry."""

from __future__ import annotations

from typing import Any

from jobdb import EventKind
from jobdb.core.protocol import build


def signed(
    job_id: str,
    seq: int,
    event: str = "progress",
    *,
    token: str | None,
    kid: int | None = 1,
    attempt: int | None = None,
    detail: str = "",
    data: dict[str, Any] | None = None,
) -> str:
    """Return the payload that an agent sends; unsigned if ``token`` is None."""
    return build(
        job_id=job_id,
        seq=seq,
        event=EventKind(event),
        timestamp="2026-06-19T09:32:00Z",
        detail=detail,
        data=data or {},
        attempt=attempt,
        kid=kid if token else None,
        token=token,
    ).text
