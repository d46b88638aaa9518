"""A registry and a runner that are only data, to drive a dispatcher step by step under a clock of the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from jobdb import Claim, EventKind, GiveBack, IllegalTransition, Job, JobStatus, StaleAttempt, WorkBatch, WorkResult
from jobdb.model import AttemptKey, NewEvent, WorkerInfo
from jobdb.work.dispatcher import Dispatcher
from jobdb.work.mailbox import Finished, Heard, Mailbox
from jobdb.work.outcomes import Report, Stop
from jobdb.work.settings import WorkerSettings
from jobdb.work.transitions import Transition

_SOME_TIME = datetime(2026, 6, 19, tzinfo=UTC)


class Clock:
    """Seconds that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_job(job_id: str, *, attempt: int = 1, **fields: Any) -> Job:
    """Return a running job."""
    usual: dict[str, Any] = {
        **dict.fromkeys(("agent_session", "broker", "worker", "lease_expires_at", "started_at", "finished_at")),
        **dict.fromkeys(("last_event", "last_event_at", "detail")),
        "status": JobStatus.RUNNING,
        "agent": "codex",
        "prompt": "sort",
        "priority": 0,
        "topic_prefix": "jobs",
        "timeout_sec": 0,
        "idle_timeout_sec": 0,
        "expected_artifacts": (),
        "last_seq": 0,
        "strikes": 0,
        "created_at": _SOME_TIME,
        "updated_at": _SOME_TIME,
        "auth": "never",
    }
    return Job(job_id=job_id, attempt=attempt, **{**usual, **fields})


@dataclass
class FakeJob:
    """A job of the fake registry.

    Attributes:
        fields: the fields of its record that differ from the usual ones.
        log: what was recorded: ("event", attempt, event), ("returned", attempt, return).
    """

    job_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    status: JobStatus = JobStatus.PENDING
    attempt: int = 0
    log: list[tuple[str, int, Any]] = field(default_factory=list)


class FakeRegistry:
    """The verbs that a dispatcher calls, on jobs in memory.

    Attributes:
        jobs: the jobs by id.
        batches: every batch that was recorded.
        failures: errors to raise, one per call, before anything is done; None lets a call through.
        during: called during each batch, before it is recorded.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.batches: list[WorkBatch] = []
        self.failures: list[Exception | None] = []
        self.during: Callable[[], None] = lambda: None
        self.claimed: set[AttemptKey] = set()
        self.engine = self
        self.now_ms = 0

    def add(self, job_id: str, **fields: Any) -> None:
        """Register a job."""
        self.jobs[job_id] = FakeJob(job_id, fields)

    def claim(self, job_id: str) -> None:
        """Let the worker claim a job without learning of it."""
        self._claim(self.jobs[job_id])

    def cancel(self, job_id: str) -> None:
        """Cancel a job."""
        self.jobs[job_id].status = JobStatus.CANCELLED

    def take_away(self, job_id: str) -> None:
        """Let another worker take a running job over."""
        self.jobs[job_id].attempt += 1

    def workers(self) -> list[Any]:
        """Return the one worker, with what it holds."""
        self._fail()
        held = tuple(key for key in sorted(self.claimed) if self._state(key) is JobStatus.RUNNING)
        return [SimpleNamespace(info=SimpleNamespace(worker_id="w1"), running=held)]

    def silent_sec(self, job_id: str) -> float | None:
        """Return for how long a job has been silent; None while it asks."""
        fields = self.jobs[job_id].fields
        if fields.get("last_event") is EventKind.PERMISSION_REQUIRED:
            return None
        last_event_at: datetime | None = fields.get("last_event_at")
        return float("inf") if last_event_at is None else self.now_ms / 1000 - last_event_at.timestamp()

    def _fail(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    def claim_states(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, JobStatus | None]:
        """Return what became of claims."""
        self._fail()
        return {key: self._state(key) for key in keys}

    def _state(self, key: AttemptKey) -> JobStatus | None:
        job = self.jobs[key[0]]
        return None if job.attempt != key[1] or job.status is JobStatus.PENDING else job.status

    def work_batch(self, batch: WorkBatch) -> WorkResult:
        """Record a batch."""
        self._fail()
        self.during()
        self.batches.append(batch)
        refused: dict[AttemptKey, Any] = {}
        returned: dict[AttemptKey, Any] = {}
        for event in batch.events:
            self._publish(event, refused)
        for back in batch.give_back:
            key = (back.job_id, back.attempt)
            if self._refuse(key, refused):
                continue
            self._record(key, "returned", back)
            ends = back.counts and back.limit == 1
            self.jobs[back.job_id].status = JobStatus.ERROR if ends else JobStatus.PENDING
            returned[key] = "ended" if ends else "returned"
        for key in batch.renew:
            self._refuse(key, refused)
        pending = [job for job in self.jobs.values() if job.status is JobStatus.PENDING]
        return WorkResult(claims=tuple(map(self._claim, pending[: batch.claim])), refused=refused, returned=returned)

    def _publish(self, event: NewEvent, refused: dict[AttemptKey, Any]) -> None:
        assert event.attempt is not None
        key = (event.job_id, event.attempt)
        if self._refuse(key, refused):
            return
        self._record(key, "event", event)
        if event.event.terminal:
            is_completion = event.event is EventKind.COMPLETED
            self.jobs[event.job_id].status = JobStatus.COMPLETED if is_completion else JobStatus.ERROR

    def _record(self, key: AttemptKey, what: str, value: NewEvent | GiveBack) -> None:
        self.jobs[key[0]].log.append((what, key[1], value))

    def _refuse(self, key: AttemptKey, refused: dict[AttemptKey, Any]) -> bool:
        status = self._state(key)
        if status is JobStatus.RUNNING:
            return False
        error = IllegalTransition if status is not None else StaleAttempt
        refused.setdefault(key, error(f"attempt {key[1]} of job {key[0]} is {status}"))
        return True

    def _claim(self, job: FakeJob) -> Claim:
        job.status = JobStatus.RUNNING
        job.attempt += 1
        self.claimed.add((job.job_id, job.attempt))
        record = make_job(job.job_id, attempt=job.attempt, **job.fields)
        return Claim(record, job.attempt, "host1:7", None)


class FakeRunner:
    """A runner that only notes what it is told.

    Attributes:
        running: the deadline per attempt that runs.
        started: every attempt that was started, with the deadline.
        stops: the stops per attempt.
        recorded_events: how many events per attempt were recorded.
    """

    log_dir = None
    patience_sec = 5.0

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.running: dict[AttemptKey, float] = {}
        self.started: list[tuple[AttemptKey, float]] = []
        self.stops: dict[AttemptKey, list[Stop]] = {}
        self.recorded_events: dict[AttemptKey, int] = {}

    def start(self, claim: Claim, deadline: float) -> None:
        key = (claim.job_id, claim.attempt)
        self.started.append((key, deadline))
        self.running[key] = deadline

    def extend(self, key: AttemptKey, deadline: float) -> None:
        self.running[key] = deadline

    def stop(self, key: AttemptKey, stop: Stop) -> None:
        self.stops.setdefault(key, []).append(stop)

    def recorded(self, key: AttemptKey, count: int) -> None:
        self.recorded_events[key] = self.recorded_events.get(key, 0) + count

    def hear(self, key: AttemptKey, detail: str = "", kind: EventKind = EventKind.PROGRESS) -> None:
        """Let an attempt publish an event."""
        self._mailbox.post(Heard(key, NewEvent(job_id=key[0], event=kind, detail=detail, attempt=key[1])))

    def finish(self, key: AttemptKey, report: Report) -> None:
        """Let an attempt end."""
        del self.running[key]
        self._mailbox.post(Finished(key, report))


class Bench:
    """A dispatcher with a fake registry, a fake runner and a clock."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.registry = FakeRegistry()
        self.mailbox = Mailbox()
        self.runner = FakeRunner(self.mailbox)
        self.transitions: list[Transition] = []
        registry: Any = self.registry
        runner: Any = self.runner
        self.dispatcher = Dispatcher(
            registry,
            runner,
            self.mailbox,
            settings=WorkerSettings(**{"reap": False, "drain_sec": 60.0, **settings}).checked(),
            info=WorkerInfo(
                worker_id="w1",
                name="host1:7",
                agent=None,
                host="host1",
                machine="",
                boot_id="",
                pid_namespace="",
                pid=7,
                pid_started=0,
                slots=8,
                log_dir=None,
                lease_sec=60.0,
            ),
            report=self.transitions.append,
            clock=self.clock,
        )

    def round(self, *, after: float = 0.0, changed: bool = False) -> float:
        """Advance the clock and do one round; return when the next one is due."""
        self.clock.now += after
        if changed:
            self.mailbox.note_change()
        return self.dispatcher.round()

    def settle(self) -> None:
        """Do rounds until none is due at once."""
        for _ in range(100):
            if self.round() > self.clock.now:
                return
        raise AssertionError("the dispatcher is never done")
