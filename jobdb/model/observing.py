"""What goes with observing jobs: arrivals and their verdicts, subscribers, refusals, deliveries to a broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .enums import EventKind, JobStatus, Verdict
from .events import Event
from .times import format_time


@dataclass(frozen=True, slots=True)
class Arrival:
    """A wire payload as it came in, and the topic it came on where there was one."""

    payload: bytes | str | Mapping[str, Any] = field(repr=False)
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What accept answered.

    Attributes:
        verdict: the answer.
        job_id: the job that the payload names; None when it could not be read.
        seq: the event's number; None when it could not be read.
        event: the stored event, when it was accepted now or before.
        missing: the seqs that were skipped over to accept this one.
        reason: one sentence for a person; empty when accepted.
    """

    verdict: Verdict
    job_id: str | None = None
    seq: int | None = None
    event: Event | None = None
    missing: range = range(0)
    reason: str = ""

    def as_dict(self, *, most_missing: int = 1000) -> dict[str, Any]:
        """JSON-ready; ``missing`` lists at most ``most_missing`` seqs and ``missing_count`` counts all."""
        return {
            "verdict": self.verdict.value,
            "job_id": self.job_id,
            "seq": self.seq,
            "missing": list(self.missing[:most_missing]),
            "missing_count": self.missing.stop - self.missing.start if self.missing else 0,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscriber's numbers for one job."""

    subscriber: str
    job_id: str
    job_status: JobStatus
    start_seq: int
    last_seq: int
    handled_seq: int
    job_last_seq: int
    last_event_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "subscriber": self.subscriber,
            "job_id": self.job_id,
            "job_status": self.job_status.value,
            "start_seq": self.start_seq,
            "last_seq": self.last_seq,
            "handled_seq": self.handled_seq,
            "job_last_seq": self.job_last_seq,
            "last_event_at": format_time(self.last_event_at),
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """An authentic event that was refused, as recorded."""

    number: int
    job_id: str
    subscriber: str
    verdict: Verdict
    seq: int
    recorded_at: datetime
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "job_id": self.job_id,
            "subscriber": self.subscriber,
            "verdict": self.verdict.value,
            "seq": self.seq,
            "recorded_at": format_time(self.recorded_at),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that waits for the broker. ``number`` names it to ``mark_delivered``."""

    number: int
    job_id: str
    seq: int
    event: EventKind
    topic: str
    payload: str = field(repr=False)
