"""The transitions that a worker reports to ``on_event``: what it claimed, started, published, ended and lost.

Created by the worker and its runners; read by ``jobdb work``, which shows them, and by applications. Calls nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from ..model import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The base class of all transitions; never reported itself."""

    kind: ClassVar[str] = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the transition as JSON-ready values, under the stable names of the command line's --json."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"transition": self.kind, **{name: _plain(value) for name, value in values.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Job):
        return value.as_dict()
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class OfJob(Transition):
    """The base class of the transitions of one attempt.

    Attributes:
        job_id: the job.
        attempt: the attempt.
    """

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed(OfJob):
    """The worker has claimed a job.

    Attributes:
        job: the job.
    """

    kind = "claimed"
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(OfJob):
    """The code or the command of a job runs.

    Attributes:
        pid: its process; None if it runs in a thread.
    """

    kind = "started"
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(OfJob):
    """An event was recorded.

    Attributes:
        event: its kind.
        detail: its detail.
        data: its data.
    """

    kind = "event"
    event: str
    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(OfJob):
    """Something about an attempt that is worth a line in a log, such as an invalid line on the agent's channel.

    Attributes:
        text: a sentence.
    """

    kind = "note"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping(OfJob):
    """The processes or the code of a job are being stopped.

    Attributes:
        cause: "cancelled", "ended", "taken_over", "deadline", "timeout", "idle" or "drain".
        reason: why, in a sentence.
    """

    kind = "stopping"
    cause: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(OfJob):
    """A job has ended, and that is recorded.

    Attributes:
        status: "completed" or "error".
        detail: a sentence.
        data: the facts.
        duration_sec: how long the attempt ran, in seconds.
    """

    kind = "ended"
    status: str
    detail: str
    data: Mapping[str, Any]
    duration_sec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned(OfJob):
    """A job was given back and is pending again, and that is recorded.

    Attributes:
        reason: why, in a sentence.
        delay_sec: how long nobody may claim it, in seconds.
        counts: True if a try was used up.
        data: the facts.
        duration_sec: how long the attempt ran, in seconds.
    """

    kind = "returned"
    reason: str
    delay_sec: float
    counts: bool
    data: Mapping[str, Any]
    duration_sec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(OfJob):
    """An attempt is over, and nothing could be recorded for it.

    Attributes:
        reason: why, in a sentence.
        duration_sec: how long the attempt ran, in seconds.
    """

    kind = "lost"
    reason: str
    duration_sec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped(Transition):
    """A job of another worker was returned or ended.

    Attributes:
        job_id: the job.
        action: "returned" or "ended".
        reason: why, in a sentence.
    """

    kind = "reaped"
    job_id: str
    action: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining(Transition):
    """The worker claims nothing more and waits for what runs.

    Attributes:
        running: the ids of the jobs that run.
        drain_sec: how long it waits before it gives them back, in seconds; 0: it does so at once.
        reason: why, in a sentence.
    """

    kind = "draining"
    running: tuple[str, ...]
    drain_sec: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble(Transition):
    """The database could not be used; nothing is lost, and it is tried again.

    Attributes:
        error: the error's message.
        retry_sec: in how many seconds it is tried again.
    """

    kind = "trouble"
    error: str
    retry_sec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Transition):
    """The worker has begun.

    Attributes:
        worker: its name.
        worker_id: its id.
        slots: how many jobs it runs at a time.
    """

    kind = "worker_started"
    worker: str
    worker_id: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded(Transition):
    """The worker has ended.

    Attributes:
        worker: its name.
        worker_id: its id.
        claimed: how many jobs it claimed.
        completed: how many of them completed.
        failed: how many attempts failed: their jobs ended as error, or a try was used up.
        returned: how many were given back without using up a try.
        lost: how many attempts nothing could be recorded for.
    """

    kind = "worker_ended"
    worker: str
    worker_id: str
    claimed: int
    completed: int
    failed: int
    returned: int
    lost: int
