"""Records about observing jobs: arrivals, verdicts, subscriptions, refusals, and deliveries to a broker.

Used by every package, as names of ``jobdb.model``; imports only its neighbours here.
"""

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
    """A wire payload as received.

    Attributes:
        payload: the payload.
        topic: the MQTT topic that it arrived on; None if it did not arrive over MQTT.
    """

    payload: bytes | str | Mapping[str, Any] = field(repr=False)
    topic: str | None = None

    def __hash__(self) -> int:
        return hash((self.topic, len(self.payload)))


@dataclass(frozen=True, slots=True, repr=False)
class Acceptance:
    """The result of ``accept``.

    Attributes:
        verdict: the verdict on the event.
        job_id: the job that the payload names; None if that could not be read.
        seq: the event's number; None if that could not be read.
        event: the stored event, if it was accepted now or before.
        missing: the seqs that were skipped to accept this one.
        reason: one sentence for people; empty if accepted.
    """

    verdict: Verdict
    job_id: str | None = None
    seq: int | None = None
    event: Event | None = None
    missing: range = range(0)
    reason: str = ""

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self, "verdict", "job_id", "seq", "missing", "reason")

    def as_dict(self, *, most_missing: int = 1000) -> dict[str, Any]:
        """Return this as JSON-ready values, under the stable names of the command line's --json.

        Args:
            most_missing: the maximum number of seqs to list in ``missing``; ``missing_count`` counts all.
        """
        return {
            "verdict": self.verdict.value,
            "job_id": self.job_id,
            "seq": self.seq,
            "missing": list(self.missing[:most_missing]),
            "missing_count": self.missing.stop - self.missing.start if self.missing else 0,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Subscription:
    """The position of one subscriber in the events of one job.

    Attributes:
        subscriber: the name of the subscriber.
        job_id: the id of the job.
        job_status: the status of the job.
        start_seq: the seq after which the subscriber began.
        last_seq: the highest seq that it has accepted.
        handled_seq: the seq up to which its handler has finished.
        job_last_seq: the highest seq of the job.
        last_event_at: when it last accepted an event; None if never.
    """

    subscriber: str
    job_id: str
    job_status: JobStatus
    start_seq: int
    last_seq: int
    handled_seq: int
    job_last_seq: int
    last_event_at: datetime | None

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self)

    def as_dict(self) -> dict[str, Any]:
        """Return this as JSON-ready values, under the stable names of the command line's --json."""
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


@dataclass(frozen=True, slots=True, repr=False)
class Refusal:
    """An authentic event that was refused.

    Attributes:
        number: the number of this record; later refusals have higher ones.
        job_id: the id of the job.
        subscriber: the subscriber for which it was refused.
        verdict: why it was refused.
        seq: the event's number.
        recorded_at: when it was first refused.
        reason: one sentence for people.
    """

    number: int
    job_id: str
    subscriber: str
    verdict: Verdict
    seq: int
    recorded_at: datetime
    reason: str

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self)

    def as_dict(self) -> dict[str, Any]:
        """Return this as JSON-ready values, under the stable names of the command line's --json."""
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
    """An event that waits for delivery to the broker. ``mark_delivered`` takes its ``number``."""

    number: int
    job_id: str
    seq: int
    event: EventKind
    topic: str
    payload: str = field(repr=False)
