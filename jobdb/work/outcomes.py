"""The result of an attempt's end: the event that ends the job, its return, or nothing.

Called by the dispatcher with what a runner reports; the runners create the reports. Pure.

A report says what happened to the code or command of an attempt; the cause says why the worker had asked it to stop, if
it had. Both together decide: exit code 0 is a success unless the time was up before, and a failure after a drain has
begun is no failure of the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..model import EventKind, GiveBack, NewEvent

KEEPER_LIMIT = 3
"""The number of times that a job without ``max_attempts`` loses its keeper or its lease before it ends as error."""
FIRST_RETRY_SEC, LONGEST_RETRY_SEC = 1.0, 60.0


class StopCause(StrEnum):
    """Why the worker stops what runs for a job."""

    CANCELLED = "cancelled"
    ENDED = "ended"
    TAKEN_OVER = "taken_over"
    DEADLINE = "deadline"
    TIMEOUT = "timeout"
    IDLE = "idle"
    DRAIN = "drain"

    @property
    def claim_is_gone(self) -> bool:
        """True if the job is no longer this attempt's, so that nothing is recorded."""
        return self in (StopCause.CANCELLED, StopCause.ENDED, StopCause.TAKEN_OVER)

    @property
    def ends_renewal(self) -> bool:
        """True if the claim is not renewed any more."""
        return self.claim_is_gone or self is StopCause.DEADLINE


@dataclass(frozen=True, slots=True)
class Stop:
    """A request to stop what runs for a job.

    Attributes:
        cause: why.
        reason: why, in a sentence.
        at_once: without a grace.
    """

    cause: StopCause
    reason: str
    at_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """It ended as it should."""

    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It ended with an error of its own: a try is used up.

    Attributes:
        is_final: no further try can help: the job ends, whatever tries it has left.
    """

    reason: str
    is_final: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """It asks to be tried again later: no try is used up."""

    reason: str
    delay_sec: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """The attempt is gone, and nobody knows how far it came: a try is used up, of three at least."""

    reason: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """It never ran, and the job is not at fault.

    Attributes:
        reason: why, in a sentence.
        delay_sec: how long nobody may claim it, in seconds.
        exit_code: with this code the worker ends, since it can start nothing; None: it goes on.
    """

    reason: str
    delay_sec: float = 0.0
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """It ended because it was asked to."""

    data: Mapping[str, Any] = field(default_factory=dict)


Report = Succeeded | Failed | Deferred | Vanished | NotStarted | Stopped
"""A runner's report of the end of an attempt."""

Ending = NewEvent | GiveBack
"""The record of the end of an attempt."""


def ending(job_id: str, attempt: int, strikes: int, report: Report, stop: Stop | None) -> Ending | None:
    """Return what to record for an attempt; None for nothing.

    Args:
        job_id: the job.
        attempt: the attempt.
        strikes: how many tries had been used up when it was claimed.
        report: how it ended.
        stop: why the worker had asked it to stop; None if it had not.
    """
    cause = None if stop is None else stop.cause
    if cause is not None and cause.claim_is_gone:
        return None
    if stop is not None and cause in (StopCause.TIMEOUT, StopCause.IDLE):
        return _failure(job_id, attempt, strikes, stop.reason, {**_data(report), "reason": cause.value})
    if isinstance(report, Succeeded):
        return NewEvent(
            job_id=job_id, event=EventKind.COMPLETED, detail=report.detail, data=report.data, attempt=attempt
        )
    if isinstance(report, Deferred | NotStarted):
        return GiveBack(
            job_id=job_id, attempt=attempt, reason=report.reason, delay_sec=report.delay_sec, data=_data(report)
        )
    if stop is not None and cause is StopCause.DRAIN:
        return GiveBack(job_id=job_id, attempt=attempt, reason=stop.reason)
    if stop is not None:  # the lease: it ran out like that of a worker that died
        return _strike(job_id, attempt, stop.reason, _data(report))
    if isinstance(report, Failed) and report.is_final:
        return NewEvent(job_id=job_id, event=EventKind.ERROR, detail=report.reason, data=report.data, attempt=attempt)
    if isinstance(report, Failed):
        return _failure(job_id, attempt, strikes, report.reason, report.data)
    reason = report.reason if isinstance(report, Vanished) else "it was stopped by somebody else"
    return _strike(job_id, attempt, reason, _data(report))


def _data(report: Report) -> Mapping[str, Any]:
    return {} if isinstance(report, NotStarted) else report.data


def _failure(job_id: str, attempt: int, strikes: int, reason: str, data: Mapping[str, Any]) -> GiveBack:
    return GiveBack(
        job_id=job_id,
        attempt=attempt,
        reason=reason,
        delay_sec=retry_delay_sec(strikes),
        counts=True,
        limit=1,
        data=data,
    )


def _strike(job_id: str, attempt: int, reason: str, data: Mapping[str, Any]) -> GiveBack:
    return GiveBack(job_id=job_id, attempt=attempt, reason=reason, counts=True, limit=KEEPER_LIMIT, data=data)


def retry_delay_sec(strikes: int) -> float:
    """Return how long a failed job waits before it is tried again: longer with every try, so that a fault can pass.

    Args:
        strikes: how many tries had been used up before this one.

    Example:
        >>> [retry_delay_sec(strikes) for strikes in (0, 1, 2, 10)]
        [1.0, 2.0, 4.0, 60.0]
    """
    return min(LONGEST_RETRY_SEC, FIRST_RETRY_SEC * 2.0 ** min(strikes, 10))
