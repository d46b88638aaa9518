"""The dispatcher: all of a worker's dealings with the database, one batch per round, and the fate of its attempts.

Used by ``Worker.run``, which calls `Dispatcher.round` in one thread until `is_done`, and waits in between. Calls the
registry and the runner; everything else talks to it through the mailbox. While one transaction is synced, the next
batch collects, so that a busy worker pays one sync for many verbs, and an idle one waits for nothing. Prior art:
River's batch completer, Oban's producers.

In a round: what has happened, what is overdue, whether the claims still stand, reaping, then the batch. A round that
follows a suspension begins with the deadlines, before it asks the database anything.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, assert_never

from ..errors import Busy, InvalidInput, JobdbError, KeyProblem, StorageFailed, SyncFailed, Unavailable, UnknownJob
from ..model import GiveBack, JobStatus
from ..registry.working import lost_reason
from . import transitions
from .mailbox import Alive, Finished, Heard, Remark, Running
from .outbox import Written, key_of, make_batch
from .outcomes import NotStarted, Stop, StopCause, ending
from .pace import ClaimPace, RetryPace, StatesPace
from .reaping import Reaper
from .recorder import Recorder
from .silence import note_own_events
from .slots import Slot, due_renewals
from .strays import Strays

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Claim, WorkerInfo, WorkResult
    from ..registry import Registry
    from .mailbox import Mailbox, Message
    from .runner import Runner
    from .settings import WorkerSettings
    from .slots import Key
    from .transitions import Transition

NEVER = float("inf")
LONGEST_HEARTBEAT_SEC = 60.0
LINGER_SHARE, LONGEST_LINGER_SEC = 0.1, 0.001
"""The wait for jobs that end at once: a share of what the transaction took that they can save."""
DRAIN_REASON = "the worker was stopped"


class Dispatcher:
    """The state of a worker that runs. Only its own thread touches it.

    Args:
        registry: the registry.
        runner: runs the attempts.
        mailbox: its messages.
        settings: the worker's settings.
        info: the worker.
        report: told every transition.
        clock: seconds, by a clock that runs during a suspension.

    Attributes:
        exit_code: the exit code that a runner asked for; 0 if none did.
        linger_sec: how long it is worth to wait before the next round, in seconds: jobs were started a moment ago, and
            those that end at once can then share the next transaction.
    """

    def __init__(
        self,
        registry: Registry,
        runner: Runner,
        mailbox: Mailbox,
        *,
        settings: WorkerSettings,
        info: WorkerInfo,
        report: Callable[[Transition], None],
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._mailbox = mailbox
        self._settings = settings
        self._info = info
        self._report = report
        self._clock = clock
        self._slots: dict[Key, Slot] = {}
        self._records = Recorder(report, clock)
        self._claims = ClaimPace()
        self._states = StatesPace()
        self._retry = RetryPace()
        self._reaper = Reaper(registry, info, settings) if settings.reap else None
        self._strays = Strays(registry, info.worker_id)
        self._heartbeat_at = float("-inf")
        self._queue_is_empty = False
        self._drain_until: float | None = None
        self._kills = False
        self.exit_code = 0
        self.linger_sec = 0.0

    # -- one round

    def round(self) -> float:
        """Do everything that is to be done now; return when there will be more, by the clock.

        Raises:
            JobdbError: the database cannot be used any more.
        """
        self.linger_sec = 0.0
        for message in self._mailbox.take():
            self._handle(message)
        if self._mailbox.take_change():
            self._claims.note_change()
            self._states.note_change()
        if self._records.take_due(self._clock()):
            self._claims.note_change()
        self._stop_overdue()
        if self._drain_until is not None:
            self._hurry_drain(self._drain_until)
        if self._clock() >= self._retry.until:
            try:
                self._use_database()
            except (Busy, Unavailable, StorageFailed) as error:
                if isinstance(error, SyncFailed):
                    raise
                if isinstance(error, Unavailable):
                    self._strays.suspect()
                pause = self._retry.failed(self._clock())
                self._report(transitions.Trouble(error=str(error), retry_sec=pause))
            else:
                self._retry.succeeded()
        elif self.is_draining:
            self._records.give_up(self._clock())
        return self._next_round()

    def _use_database(self) -> None:
        """Ask and write what is due."""
        self._strays.give_back({*self._slots, *self._records.ended})
        self._check_claims()
        self._stop_silent()
        if self._reaper is not None and not self.is_draining and self._clock() >= self._reaper.due_at:
            for transition in self._reaper.reap(self._clock()):
                self._report(transition)
        self._write_batch()

    def _next_round(self) -> float:
        """Return when the next round is due unless somebody wakes us."""
        times = [slot.next_check() for slot in self._slots.values()]
        database = [self._heartbeat_at, *(slot.idle_at() for slot in self._slots.values())]
        if self._drain_until is not None:
            times += [max(self._drain_until, self._patience_end(slot)) for slot in self._slots.values()]
            if any(slot.stop is None for slot in self._slots.values()):
                times.append(self._drain_until)
        elif self._reaper is not None:
            database.append(self._reaper.due_at)
        if self._asked_about():
            database.append(self._states.next_ask())
        if self._wanted() > 0:
            database.append(min(self._claims.next_ask(), self._records.next_due()))
        if self._records.has_work:
            database.append(self._clock())
        return min([*times, max(min(database), self._retry.until)])

    # -- what has happened

    def _handle(self, message: Message) -> None:
        slot = self._slots.get(message.key)
        if slot is None:
            return  # given up: nobody waits for it any more
        job_id, attempt = slot.key
        now = self._clock()
        match message:
            case Heard(event=event):
                slot.note_event(event.event, now)
                if slot.holds_claim:
                    self._records.add_event(event)
            case Alive():
                slot.note_sign(now)
            case Running(pid=pid):
                slot.note_sign(now)
                self._report(transitions.Started(job_id=job_id, attempt=attempt, pid=pid))
            case Remark(text=text):
                self._report(transitions.Noted(job_id=job_id, attempt=attempt, text=text))
            case Finished(report=report):
                del self._slots[slot.key]
                slot.ended_at = now
                if isinstance(report, NotStarted) and report.exit_code is not None:
                    self.exit_code = self.exit_code or report.exit_code
                    self.drain(report.reason)
                end = ending(job_id, attempt, slot.claim.job.strikes, report, slot.stop)
                if end is not None:
                    self._records.add_ending(slot, end)
                else:
                    self._records.lose(slot, slot.stop.reason if slot.stop is not None else "its claim is gone")
            case _:
                assert_never(message)

    # -- stopping

    def _stop(self, slot: Slot, stop: Stop) -> None:
        """Stop an attempt, unless its claim is already known to be gone."""
        if not slot.holds_claim:
            return
        slot.stop, slot.stopped_at = stop, self._clock()
        if not slot.holds_claim:
            self._records.discard(slot.key)
        job_id, attempt = slot.key
        self._report(transitions.Stopping(job_id=job_id, attempt=attempt, cause=stop.cause.value, reason=stop.reason))
        self._runner.stop(slot.key, stop)

    def _stop_overdue(self) -> None:
        now = self._clock()
        for slot in list(self._slots.values()):
            stop = slot.overdue(now)
            if stop is not None:
                self._stop(slot, stop)

    def _stop_silent(self) -> None:
        """Stop attempts that have been silent for too long, unless their agents have published on their own."""
        for slot in list(self._slots.values()):
            if self._clock() < slot.idle_at():
                continue
            note_own_events(self._registry, slot, self._clock)
            if self._clock() >= slot.idle_at():
                limit = slot.claim.job.idle_timeout_sec
                self._stop(slot, Stop(StopCause.IDLE, f"idle: no sign of life for more than {limit} s"))

    def drain(self, reason: str = DRAIN_REASON) -> None:
        """Claim nothing more; what runs may run for ``drain_sec``, then it is stopped and given back."""
        if self._drain_until is None:
            self._drain_until = self._clock() + self._settings.drain_sec
            running = tuple(job_id for job_id, _attempt in self._slots)
            self._report(transitions.Draining(running=running, drain_sec=self._settings.drain_sec, reason=reason))

    def kill(self) -> None:
        """Claim nothing more, and stop at once and give back what runs."""
        self.drain()
        if not self._kills:
            self._kills = True
            self._drain_until = self._clock()
            for slot in self._slots.values():
                if slot.stop is not None and not slot.stop.at_once:
                    slot.stop = Stop(slot.stop.cause, slot.stop.reason, at_once=True)
                    slot.stopped_at = self._clock()
                    self._runner.stop(slot.key, slot.stop)

    def _hurry_drain(self, until: float) -> None:
        """Stop what still runs at the end of a drain, and give up what does not end then either."""
        if self._clock() < until:
            return
        for slot in list(self._slots.values()):
            if slot.stop is None:
                self._stop(slot, Stop(StopCause.DRAIN, DRAIN_REASON, at_once=self._kills))
            elif self._clock() >= self._patience_end(slot):
                del self._slots[slot.key]
                self._records.lose(slot, "it did not end after it was stopped; its lease runs out")

    def _patience_end(self, slot: Slot) -> float:
        """Return when an attempt that was stopped is given up by a worker that is to end."""
        return slot.stopped_at + self._runner.patience_sec if slot.stop is not None else NEVER

    @property
    def is_draining(self) -> bool:
        """True if it claims nothing more."""
        return self._drain_until is not None

    @property
    def is_done(self) -> bool:
        """True if nothing runs and nothing is left to write, and nothing more is to be claimed."""
        if self._slots or self._records.has_work:
            return False
        if self.is_draining or (self._settings.once and self._records.tally["claimed"] > 0):
            return True
        return self._settings.until_empty and self._queue_is_empty and not self._records.is_waiting

    # -- the claims

    def _asked_about(self) -> list[Key]:
        """Return the attempts whose claims are checked."""
        held = [slot.key for slot in self._slots.values() if slot.holds_claim]
        return [*held, *self._records.doubtful]

    def _check_claims(self) -> None:
        """Ask whether the claims still stand; stop what has lost its claim."""
        keys, now = self._asked_about(), self._clock()
        if not keys or (now < self._states.next_ask() and not self._records.doubtful):
            return
        self._states.asked(now)
        found = self._registry.claim_states(keys)
        self._records.resolve(found)
        for key, status in found.items():
            slot = self._slots.get(key)
            if slot is not None and status is not JobStatus.RUNNING:
                self._stop(slot, Stop(_cause(status), lost_reason(*key, status), at_once=status is None))

    # -- the batch

    def _wanted(self) -> int:
        """Return how many jobs could be claimed."""
        if self.is_draining:
            return 0
        if self._settings.once:
            return 0 if self._records.tally["claimed"] else 1
        return self._settings.concurrency - len(self._slots)

    def _write_batch(self) -> None:
        """Write what is there, renew what is due, and claim for the free slots."""
        now = self._clock()
        written = self._records.next()
        wanted = self._wanted() - self._records.count_postponed(written)
        wanted = wanted if wanted > 0 and now >= self._claims.next_ask() else 0
        renew = due_renewals(self._slots.values(), now, self._settings.lease_sec)
        heartbeat = now >= self._heartbeat_at
        if not (written.events or written.endings or wanted or renew or heartbeat):
            return
        result = self._registry.work_batch(
            make_batch(self._settings, self._info, written=written, renew=renew, claim=wanted, heartbeat=heartbeat)
        )
        if heartbeat:
            self._heartbeat_at = now + min(self._settings.lease_sec / 3, LONGEST_HEARTBEAT_SEC)
        if wanted:
            self._claims.asked(now, wanted=wanted, got=len(result.claims))
            self._queue_is_empty = len(result.claims) < wanted
            self._records.forget_due(now)
        if written.returns:
            self._claims.note_change()
            self._queue_is_empty = False
        self._records.apply(written, result)
        self._apply_renewals(renew, result, asked_at=now)
        self._apply_events(written, result)
        if result.claims:
            self.linger_sec = min(LONGEST_LINGER_SEC, LINGER_SHARE * (self._clock() - now))
        for claim in result.claims:
            self._begin(claim, asked_at=now)

    def _apply_renewals(self, renewed: tuple[Key, ...], result: WorkResult, *, asked_at: float) -> None:
        for key in renewed:
            slot = self._slots[key]
            if key in result.refused:  # if only an event was, it is renewed again
                self._suspect(slot, result.refused[key])
            else:
                slot.renewed(asked_at, self._settings.lease_sec)
                self._runner.extend(key, slot.deadline)

    def _apply_events(self, written: Written, result: WorkResult) -> None:
        for key, count in Counter(map(key_of, written.events)).items():
            slot = self._slots.get(key)
            if slot is not None:
                self._runner.recorded(key, count)
                if key in result.refused:
                    self._suspect(slot, result.refused[key])

    def _suspect(self, slot: Slot, error: JobdbError) -> None:
        """Check the claims next, unless the error is about the event alone, which is reported."""
        if isinstance(error, InvalidInput | KeyProblem) and not isinstance(error, UnknownJob):
            self._report(transitions.Noted(job_id=slot.key[0], attempt=slot.key[1], text=str(error)[:1000]))
        self._states.suspect()

    def _begin(self, claim: Claim, *, asked_at: float) -> None:
        """Start a claimed job."""
        slot = Slot(claim, asked_at=asked_at, lease_sec=self._settings.lease_sec)
        self._records.note_claimed(claim.job_id)
        self._report(transitions.Claimed(job_id=claim.job_id, attempt=claim.attempt, job=claim.job))
        if self._clock() >= slot.deadline:
            # This process was stopped, or the call took longer than the lease: nothing may start.
            reason = "the lease ran out while the job was being claimed"
            self._records.add_ending(slot, GiveBack(job_id=claim.job_id, attempt=claim.attempt, reason=reason))
            return
        self._slots[slot.key] = slot
        self._runner.start(claim, slot.deadline)

    # -- the end

    def abandon(self) -> bool:
        """Stop everything without the database, which cannot be used; return True once nothing runs.

        Called again and again until then.
        """
        for message in self._mailbox.take():
            if isinstance(message, Finished) and (slot := self._slots.pop(message.key, None)) is not None:
                self._records.lose(slot, "the database cannot be used")
        for slot in list(self._slots.values()):
            if slot.stop is None or not slot.stop.at_once:
                slot.stop = Stop(StopCause.TAKEN_OVER, "the database cannot be used", at_once=True)
                slot.stopped_at = self._clock()
                self._runner.stop(slot.key, slot.stop)
            elif self._clock() >= self._patience_end(slot):
                del self._slots[slot.key]
                self._records.lose(slot, "it did not end after it was stopped; its lease runs out")
        return not self._slots

    def close(self) -> None:
        """Let another worker reap."""
        if self._reaper is not None:
            self._reaper.close()

    @property
    def records(self) -> Recorder:
        """The record of what the attempts leave in the database."""
        return self._records


def _cause(status: JobStatus | None) -> StopCause:
    if status is None:
        return StopCause.TAKEN_OVER
    return StopCause.CANCELLED if status is JobStatus.CANCELLED else StopCause.ENDED
