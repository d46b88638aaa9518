"""An event: to publish, and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .enums import EventKind
from .times import format_time


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to publish; the arguments of ``Registry.publish``, which documents them."""

    job_id: str
    event: EventKind
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One recorded event. ``payload`` is the wire form exactly as it is sent, on one line."""

    job_id: str
    seq: int
    event: EventKind
    timestamp: str
    detail: str
    data: Mapping[str, Any]
    attempt: int | None
    recorded_at: datetime
    payload: str = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON-ready values, under the stable names of the command line's --json."""
        return {
            "job_id": self.job_id,
            "seq": self.seq,
            "event": self.event.value,
            "timestamp": self.timestamp,
            "detail": self.detail,
            "data": dict(self.data),
            "attempt": self.attempt,
            "recorded_at": format_time(self.recorded_at),
        }
