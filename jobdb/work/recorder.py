"""The record of a worker's attempts in the database: events, endings, and the refused ones.

Used by the dispatcher, in its thread. Pure: it makes the parts of a batch and reads the result, and calls no database.

An ending that is refused may have been recorded all the same: by this very batch, if an event of the same attempt was
what was refused, or by an earlier call whose answer was lost. So the state of the claim decides what became of it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from ..model import EventKind, GiveBack, JobStatus, NewEvent
from . import transitions
from .outbox import Outbox, Written, key_of
from .settings import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ..errors import JobdbError
    from ..model import WorkResult
    from .outcomes import Ending
    from .slots import Key, Slot
    from .transitions import Transition

_DUE_SLACK_SEC = 1.5
"""The time after the end of a delay for which a job is remembered that this worker has not claimed."""


class Recorder:
    """The records of a worker.

    Args:
        report: told every transition.
        clock: seconds.

    Attributes:
        tally: what was done.
    """

    def __init__(self, report: Callable[[Transition], None], clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._outbox = Outbox()
        self._ended: dict[Key, Slot] = {}  # nothing of them runs any more, and their end is not recorded yet
        self._doubts: dict[Key, tuple[Ending, JobdbError]] = {}
        self._delayed: dict[str, float] = {}  # jobs given back with a delay, and when they are due
        self._dues: list[float] = []  # a heap of the times at which to ask for them
        self.tally = Tally()

    # -- what is to be written

    def add_event(self, event: NewEvent) -> None:
        """Queue an event of an attempt that runs."""
        self._outbox.add_event(event)

    def add_ending(self, slot: Slot, end: Ending) -> None:
        """Queue the end of an attempt of which nothing runs any more."""
        self._ended[slot.key] = slot
        self._outbox.add_ending(slot.key, end)

    def discard(self, key: Key) -> None:
        """Forget what an attempt wanted to write: its claim is gone."""
        self._outbox.discard(key)

    def lose(self, slot: Slot, reason: str) -> None:
        """Report an attempt for which nothing can be recorded."""
        self._outbox.discard(slot.key)
        self._ended.pop(slot.key, None)
        self._doubts.pop(slot.key, None)
        self.tally["lost"] += 1
        job_id, attempt = slot.key
        self._report(transitions.Lost(job_id=job_id, attempt=attempt, reason=reason, duration_sec=self._duration(slot)))

    def give_up(self, now: float) -> None:
        """Report as lost what could not be recorded before its lease ran out; only for a worker that is to end."""
        for slot in list(self._ended.values()):
            if now >= slot.deadline:
                self.lose(slot, "the database could not be used before the lease ran out")

    @property
    def has_work(self) -> bool:
        """True if there is something to write or to find out."""
        return bool(self._outbox or self._ended)

    @property
    def ended(self) -> Collection[Key]:
        """The attempts whose end is not recorded yet."""
        return self._ended.keys()

    @property
    def is_waiting(self) -> bool:
        """True if a job that was given back with a delay is not due yet."""
        return bool(self._delayed)

    @property
    def doubtful(self) -> Collection[Key]:
        """The attempts that have ended, and of which it is not known whether that is recorded."""
        return self._doubts.keys()

    def next(self) -> Written:
        """Return what to write next."""
        return self._outbox.next()

    def count_postponed(self, written: Written) -> int:
        """Return how many attempts have ended without their end being part of what is written next."""
        return len(self._ended) - len(written.endings)

    # -- what was written

    def apply(self, written: Written, result: WorkResult) -> None:
        """Read what became of the events and endings of a batch."""
        self._outbox.remove(written)
        for event in written.events:
            if key_of(event) not in result.refused:
                self._report(_published(event))
        for key, end in written.endings.items():
            slot = self._ended.get(key)
            if slot is None:
                continue
            if key in result.refused:
                self._doubts[key] = (end, result.refused[key])
            else:
                self._finish(slot, end, ended=result.returned.get(key) == "ended")

    def resolve(self, states: Mapping[Key, JobStatus | None]) -> None:
        """Decide what became of refused endings, by the states of their claims."""
        for key, (end, error) in list(self._doubts.items()):
            slot, status = self._ended[key], states[key]
            del self._doubts[key]
            if status is _final_status(end):
                self._finish(slot, end, ended=True)
            elif status is JobStatus.RUNNING and isinstance(end, NewEvent):
                # The claim stands, and its event cannot be published: the job must not hang because of what it says.
                reason = str(error)[:1000]
                self._outbox.add_ending(
                    key, GiveBack(job_id=key[0], attempt=key[1], reason=reason, counts=True, limit=1)
                )
            else:
                self.lose(slot, str(error)[:1000])

    def _finish(self, slot: Slot, end: Ending, *, ended: bool) -> None:
        """Report an attempt whose end is recorded."""
        del self._ended[slot.key]
        if isinstance(end, NewEvent):
            self.tally["completed" if end.event is EventKind.COMPLETED else "failed"] += 1
            self._report_end(slot, _final_status(end), end.detail, end.data)
            return
        self.tally["failed" if end.counts else "returned"] += 1
        if ended:
            self._report_end(slot, JobStatus.ERROR, end.reason, end.data)
            return
        job_id, attempt = slot.key
        self._delayed[job_id] = self._clock() + end.delay_sec
        heapq.heappush(self._dues, self._delayed[job_id])
        self._report(
            transitions.Returned(
                job_id=job_id,
                attempt=attempt,
                reason=end.reason,
                delay_sec=end.delay_sec,
                counts=end.counts,
                data=end.data,
                duration_sec=self._duration(slot),
            )
        )

    def _report_end(self, slot: Slot, status: JobStatus, detail: str, data: Mapping[str, Any]) -> None:
        job_id, attempt = slot.key
        self._report(
            transitions.Ended(
                job_id=job_id,
                attempt=attempt,
                status=status.value,
                detail=detail,
                data=data,
                duration_sec=self._duration(slot),
            )
        )

    def _duration(self, slot: Slot) -> float:
        return round((slot.ended_at if slot.ended_at is not None else self._clock()) - slot.started_at, 3)

    # -- the jobs that come again

    def note_claimed(self, job_id: str) -> None:
        """Note that a job was claimed: it is not waited for."""
        self.tally["claimed"] += 1
        self._delayed.pop(job_id, None)

    def take_due(self, now: float) -> bool:
        """Return whether a job that was given back has become due since the last call."""
        found = False
        while self._dues and self._dues[0] <= now:
            heapq.heappop(self._dues)
            found = True
        return found

    def next_due(self) -> float:
        """Return when `take_due` will next return True."""
        return self._dues[0] if self._dues else float("inf")

    def forget_due(self, now: float) -> None:
        """Forget the jobs that were due a while ago: others have them."""
        for job_id in [job_id for job_id, due in self._delayed.items() if due + _DUE_SLACK_SEC < now]:
            del self._delayed[job_id]


def _final_status(end: Ending) -> JobStatus:
    """Return the status of a job that has ended as its attempt's ending says."""
    is_completion = isinstance(end, NewEvent) and end.event is EventKind.COMPLETED
    return JobStatus.COMPLETED if is_completion else JobStatus.ERROR


def _published(event: NewEvent) -> transitions.Published:
    job_id, attempt = key_of(event)
    kind = EventKind(event.event).value
    return transitions.Published(job_id=job_id, attempt=attempt, event=kind, detail=event.detail, data=event.data)
