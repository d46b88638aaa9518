"""Events: as passed to ``publish``, and as recorded.

Used by every package, as names of ``jobdb.model``; imports only its neighbours here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .enums import EventKind
from .times import format_time

if TYPE_CHECKING:
    from .literals import EventName

_NAMES = frozenset(kind.value for kind in EventKind)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NewEvent:
    """An event to publish; its fields are the arguments of ``Registry.publish``, which documents them.

    Example:
        >>> NewEvent(job_id="sort-1", event="progress", detail="step 1").event
        <EventKind.PROGRESS: 'progress'>
    """

    job_id: str
    event: EventKind
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    attempt: int | None = None

    if TYPE_CHECKING:  # as the dataclass generates it, except that it also takes event names

        def __init__(
            self,
            *,
            job_id: str,
            event: EventKind | EventName,
            detail: str = ...,
            data: Mapping[str, Any] = ...,
            attempt: int | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        # An unknown name is kept as it is; ``publish_many`` refuses it.
        if type(self.event) is not EventKind and isinstance(self.event, str) and self.event in _NAMES:
            object.__setattr__(self, "event", EventKind(self.event))

    def __hash__(self) -> int:
        return hash((self.job_id, self.event, self.detail, self.attempt))

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """One recorded event.

    Attributes:
        job_id: the id of its job.
        seq: its number within the job, from 1.
        event: its kind.
        timestamp: when it was published, as signed: UTC, such as "2026-06-19T09:32:00Z".
        detail: a sentence for people.
        data: further facts.
        attempt: the attempt of the claim that it belongs to; None if the job was never claimed.
        recorded_at: when this database recorded it.
        payload: the wire form exactly as sent, on one line.
    """

    job_id: str
    seq: int
    event: EventKind
    timestamp: str
    detail: str
    data: Mapping[str, Any]
    attempt: int | None
    recorded_at: datetime
    payload: str = field(repr=False)

    def __hash__(self) -> int:
        return hash((self.job_id, self.seq))

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self, "job_id", "seq", "event", "timestamp", "detail", "data", "attempt")

    def as_dict(self) -> dict[str, Any]:
        """Return the event as JSON-ready values, under the stable names of the command line's --json."""
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
