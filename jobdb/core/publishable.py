"""The check that an event can be published, made before it is handed to others who publish it later.

Called by the worker and by what it runs. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from .protocol import MAX_KID, MAX_SEQ, build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import EventKind

_LONGEST_JOB_ID = "j" * 128
_ANY_TIMESTAMP = "2026-06-19T09:32:00Z"


def why_unpublishable(event: EventKind, detail: str, data: Mapping[str, Any]) -> str | None:
    """Return why an event cannot be published, whatever its job, seq, attempt and key; None if it can.

    Args:
        event: its kind.
        detail: its detail.
        data: its data.

    Example:
        >>> why_unpublishable(EventKind.PROGRESS, "step 1", {"pct": 10}) is None
        True
    """
    try:
        build(
            job_id=_LONGEST_JOB_ID,
            seq=MAX_SEQ,
            event=event,
            timestamp=_ANY_TIMESTAMP,
            detail=detail,
            data=data,
            attempt=MAX_SEQ,
            kid=MAX_KID,
            token="t",
        )
    except InvalidInput as problem:
        return str(problem).partition(" cannot be sent: ")[2] or str(problem)
    return None
