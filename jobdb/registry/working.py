"""Work on a claimed job: :class:`Work`, and ``Registry.working``, which keeps a claim alive.

Called by applications with a loop of their own, through ``Registry.working``; the worker (``jobdb.work``) hands the
same ``Work`` to its handlers, and the asyncio face does what a block does with threads in its own way. Calls the
registry's verbs, in a thread of its own.

A claim can end while its job is being worked on: somebody cancels the job, or the lease runs out because this process
was stopped or could not reach the database. Nobody can stop a thread from outside, so the code that works has to ask:
``work.cancelled`` and ``work.wait`` tell it, ``work.progress`` raises ``WorkCancelled``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..core import arguments, lease_times
from ..core.outcomes import describe_exception
from ..errors import (
    Busy,
    IllegalTransition,
    JobdbError,
    Refused,
    StaleAttempt,
    StorageFailed,
    SyncFailed,
    Unavailable,
    UnknownJob,
)
from ..model import EventKind, GiveBack, JobStatus, NewEvent, WorkBatch
from ..system.boot_clock import boottime
from ..system.interrupt_safe_flag import Flag
from .cancellation import CancellationToken, WorkCancelled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ..model import AttemptKey, Claim, Event, Job, WorkResult

    Outcome = Literal["completed", "failed", "returned", "lost"]
    Publish = Callable[[NewEvent], object]

DEFAULT_WORK_LEASE_SEC = 60.0
_CHECK_SEC = 0.4
"""The interval at which the heartbeat checks that the claim still stands."""
_RETRY_SEC = 0.2


class Verbs(Protocol):
    """The verbs of :class:`Registry` that keep and end a claim."""

    def renew(self, job_id: str, *, attempt: int | None = None, lease_sec: float = ...) -> Claim: ...

    def claim_states(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, JobStatus | None]: ...

    def publish(
        self,
        job_id: str,
        event: EventKind,
        *,
        detail: str = "",
        data: Mapping[str, Any] | None = None,
        attempt: int | None = None,
    ) -> Event: ...

    def work_batch(self, batch: WorkBatch) -> WorkResult: ...


class RetryLater(Exception):
    """Raised by the code that does a job to give it back: it is pending again, and no try is used up.

    Args:
        delay_sec: how long nobody may claim it, in seconds.
        reason: why, in a sentence.

    Example:
        >>> raise RetryLater(30, "the model is overloaded")
        Traceback (most recent call last):
        jobdb.registry.working.RetryLater: the model is overloaded
    """

    def __init__(self, delay_sec: float = 0.0, reason: str = "try again later") -> None:
        self.delay_sec = arguments.seconds("delay_sec", delay_sec, most=arguments.MAX_LEASE_SEC)
        self.reason = arguments.text("reason", reason, most=1000)
        super().__init__(self.delay_sec, self.reason)

    def __str__(self) -> str:
        return self.reason


class Work:
    """A claimed job in the hands of the code that does it.

    Args:
        claim: the claim.
        token: tells whether to stop.
        publish: records an event of the job.

    Attributes:
        claim: the claim as it was made.
        result: the detail and the data with which the job will end as completed; see `set_result`.
    """

    def __init__(self, claim: Claim, token: CancellationToken, publish: Publish) -> None:
        self.claim = claim
        self.result: tuple[str, Mapping[str, Any]] = ("", {})
        self._token = token
        self._publish = publish

    def __repr__(self) -> str:
        return f"<Work {self.job.job_id} attempt {self.attempt}>"

    @property
    def job(self) -> Job:
        """The job, as it was when it was claimed."""
        return self.claim.job

    @property
    def attempt(self) -> int:
        """The attempt of the claim."""
        return self.claim.attempt

    @property
    def cancelled(self) -> bool:
        """True if the work must stop: the job was cancelled, timed out or lost, or the worker is to end."""
        return self._token.ask()

    @property
    def reason(self) -> str | None:
        """Why the work must stop, in a sentence; None if it need not."""
        return self._token.reason if self._token.ask() else None

    @property
    def lost(self) -> str | None:
        """Why the claim is gone, in a sentence: nothing can be recorded for it any more. None if it stands."""
        return self._token.reason if self._token.ask() and self._token.lost else None

    def raise_if_cancelled(self) -> None:
        """Raise if the work must stop.

        Raises:
            WorkCancelled: it must.
        """
        self._token.raise_if_cancelled()

    def wait(self, sec: float) -> bool:
        """Wait; return early, and True, if the work must stop.

        Args:
            sec: how long, in seconds.
        """
        return self._token.wait(arguments.seconds("sec", sec))

    def progress(self, detail: str = "", pct: float | None = None, data: Mapping[str, Any] | None = None) -> None:
        """Publish ``progress``: a sign of life, which observers see.

        Args:
            detail: a sentence for people, up to 65,536 characters.
            pct: how much is done, 0 to 100; stored in ``data``.
            data: further facts, JSON-serializable.

        Raises:
            WorkCancelled: the work must stop.
            InvalidInput: an argument is invalid.
        """
        self.raise_if_cancelled()
        facts = {} if data is None else dict(arguments.mapping("data", data))
        if pct is not None:
            facts["pct"] = arguments.percentage("pct", pct)
        detail = arguments.text("detail", detail, most=65_536, least=0)
        self._publish(
            NewEvent(
                job_id=self.claim.job_id, event=EventKind.PROGRESS, detail=detail, data=facts, attempt=self.attempt
            )
        )

    def set_result(self, detail: str = "", data: Mapping[str, Any] | None = None) -> None:
        """Set what the event ``completed`` will say, once the work has ended without an exception.

        Args:
            detail: a sentence for people, up to 65,536 characters.
            data: further facts, JSON-serializable.
        """
        facts = {} if data is None else dict(arguments.mapping("data", data))
        self.result = (arguments.text("detail", detail, most=65_536, least=0), facts)


class Working:
    """A context manager that keeps a claim alive while its block does the job, and ends the job with the block.

    Returned by ``Registry.working``, which documents it.

    The block is `begin`, `beat` at intervals of ``pause_sec``, and `finish`; none of them at the same time as another.

    Attributes:
        work: what the block gets.
        pause_sec: how often to call `beat`, in seconds.
        outcome: "completed", "failed" (a try was used up), "returned" or "lost", once the block has ended.
    """

    def __init__(self, registry: Verbs, claim: Claim, lease_sec: float) -> None:
        self._registry = registry
        self._claim = claim
        self._lease_sec = lease_sec
        self._token = CancellationToken(0.0)
        self.pause_sec = min(_CHECK_SEC, lease_sec / 6)
        self._renew_at = 0.0
        self._done = Flag()
        self._heartbeat = threading.Thread(target=self._keep, name=f"jobdb-heartbeat-{claim.job_id}", daemon=True)
        self.work = Work(claim, self._token, self._publish)
        self.outcome: Outcome | None = None

    def __enter__(self) -> Work:
        self.begin()
        self._heartbeat.start()
        return self.work

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._done.set()
        self._heartbeat.join()
        return self.finish(error)

    def finish(self, error: BaseException | None) -> bool:
        """Record how the block ended; return True if its exception must not leave it.

        Args:
            error: the exception that ended it; None if there was none.

        Raises:
            StaleAttempt: the claim is gone, and the block had not learned of it.
        """
        if isinstance(error, WorkCancelled) and self._token.told:
            self.outcome = "lost"
            return True
        told = self._token.told
        try:
            self.outcome = self._end(error)
        except (Refused, UnknownJob) as refusal:
            self.outcome = "lost"
            if error is None and not told:
                raise self._lost_error(str(refusal)) from refusal
        return isinstance(error, RetryLater)

    def _end(self, error: BaseException | None) -> Outcome:
        """Record how the block ended; return the outcome."""
        job_id, attempt = self._claim.job_id, self._claim.attempt
        if self._token.lost and self._token.told:
            return "lost"
        if error is None:
            detail, data = self.work.result
            self._insist(
                lambda: self._registry.publish(job_id, EventKind.COMPLETED, detail=detail, data=data, attempt=attempt)
            )
            return "completed"
        if isinstance(error, RetryLater):
            self._give_back(error.reason, delay_sec=error.delay_sec)
            return "returned"
        if not isinstance(error, Exception):  # Ctrl-C, sys.exit: the job is not at fault
            self._give_back(f"interrupted by {type(error).__name__}")
            return "returned"
        reason, data = describe_exception(error)
        self._give_back(reason, counts=True, data=data)
        return "failed"

    def _give_back(
        self, reason: str, *, delay_sec: float = 0.0, counts: bool = False, data: Mapping[str, Any] | None = None
    ) -> None:
        given = GiveBack(
            job_id=self._claim.job_id,
            attempt=self._claim.attempt,
            reason=reason,
            delay_sec=delay_sec,
            counts=counts,
            limit=1,
            data=data or {},
        )
        self._insist(lambda: self._return(given))

    def _return(self, given: GiveBack) -> None:
        batch = WorkBatch(worker_id=self._claim.worker[:64] or "-", give_back=(given,))
        for refusal in self._registry.work_batch(batch).refused.values():
            raise refusal

    def _insist(self, record: Callable[[], object]) -> None:
        """Record an outcome; try again while the database cannot be reached, until the claim's deadline."""
        while True:
            try:
                record()
                return
            except (Busy, Unavailable, StorageFailed) as error:
                if isinstance(error, SyncFailed) or self._token.check():
                    raise
                time.sleep(_RETRY_SEC)

    def _lost_error(self, why: str) -> StaleAttempt:
        reason = self._token.reason if self._token.lost else None
        return StaleAttempt(
            f"the work on job {self._claim.job_id} has ended, but attempt {self._claim.attempt} no longer holds it, "
            f"and its outcome is not recorded: {reason or why}",
            advice="ask work.cancelled from time to time, and stop when it is true",
        )

    # -- the heartbeat

    def begin(self) -> None:
        """Renew the lease, so that the block begins with a whole one.

        Raises:
            StaleAttempt: the claim is gone.
        """
        asked_at = boottime()
        self._registry.renew(self._claim.job_id, attempt=self._claim.attempt, lease_sec=self._lease_sec)
        self._token.extend(lease_times.deadline(asked_at, self._lease_sec))
        self._renew_at = lease_times.renewal_due(asked_at, self._lease_sec)

    def _keep(self) -> None:
        while not self._done.wait(self.pause_sec) and self.beat():
            pass

    def beat(self) -> bool:
        """Renew the lease when it is time, and ask whether the claim stands; return False once it does not."""
        if self._token.check():
            return False
        try:
            if boottime() >= self._renew_at:
                self.begin()
            else:
                self._check_claim()
        except (Refused, UnknownJob) as refusal:
            self._token.cancel(str(refusal), lost=True)
        except (Busy, Unavailable, StorageFailed) as error:
            if isinstance(error, SyncFailed):
                self._token.cancel(str(error), lost=True)
        except JobdbError as error:
            self._token.cancel(str(error), lost=True)
        return not self._token.check()

    def _check_claim(self) -> None:
        key = (self._claim.job_id, self._claim.attempt)
        status = self._registry.claim_states([key])[key]
        if status is not JobStatus.RUNNING:
            self._token.cancel(lost_reason(*key, status), lost=True)

    def _publish(self, event: NewEvent) -> None:
        try:
            self._registry.publish(
                event.job_id, event.event, detail=event.detail, data=event.data, attempt=event.attempt
            )
        except (StaleAttempt, IllegalTransition, UnknownJob) as refusal:
            self._token.cancel(str(refusal), lost=True)
            self._token.raise_if_cancelled()


def lost_reason(job_id: str, attempt: int, status: JobStatus | None) -> str:
    """Return why an attempt no longer holds its job, in a sentence.

    Args:
        job_id: the job.
        attempt: the attempt.
        status: what ``Registry.claim_states`` says about the two.
    """
    if status is JobStatus.CANCELLED:
        return f"job {job_id} was cancelled"
    if status is not None and status.terminal:
        return f"job {job_id} has ended as {status}"
    return f"attempt {attempt} no longer holds job {job_id}: it was given back, and may have been claimed by another"
