"""A plain in-memory model of the registry, as the design describes it; the stateful machine compares both step by step.

Pure Python over dicts. It predicts each verb's answer or the name of the error. Written from the design, not from the
engine: where the two differ, one of them is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TERMINAL = {"completed", "error", "cancelled"}
CURRENT_ATTEMPT = None
"""An event without an attempt belongs to the current one, which must not be held under a lease."""
STRIKE_LIMIT = 3
"""The expired leases after which a job without ``max_attempts`` ends, unless a caller of reap says otherwise."""


class Refused(Exception):
    """The model's error; ``args[0]`` is the name of jobdb's."""


@dataclass
class SubscriberModel:
    """A subscriber's position in one job."""

    last: int = 0
    accepted: set[int] = field(default_factory=set)


@dataclass
class ModelJob:
    """One job. Times in milliseconds."""

    job_id: str
    order: int
    priority: int
    agent: str
    timeout_ms: int
    idle_ms: int
    max_attempts: int | None = None
    status: str = "pending"
    attempt: int = 0
    strikes: int = 0
    lease_until: int | None = None
    not_before: int | None = None
    made_by: dict[int, str] = field(default_factory=dict)
    started: int = 0
    last_event_at: int = 0
    finished: int = 0
    kid: int = 1
    events: list[str] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    subscribers: dict[str, SubscriberModel] = field(default_factory=dict)


class Model:
    """The whole registry. ``now`` is the shared clock."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000
        self.jobs: dict[str, ModelJob] = {}
        self.keys: dict[str, str] = {}
        self._order = 0

    def register(
        self, job_id: str, *, priority: int, agent: str, timeout_sec: int, idle_sec: int, max_attempts: int | None
    ) -> None:
        self._order += 1
        self.jobs[job_id] = ModelJob(
            job_id, self._order, priority, agent, timeout_sec * 1000, idle_sec * 1000, max_attempts
        )

    def claim(self, agent: str | None, lease_ms: int | None, count: int = 1) -> list[ModelJob]:
        """Claim up to ``count`` jobs, after expired leases have been given back and due jobs are ready."""
        for job in self.jobs.values():
            if job.not_before is not None and job.not_before <= self.now:
                job.not_before = None
            self._give_back_expired(job, STRIKE_LIMIT)
        ready = [
            job
            for job in self.jobs.values()
            if job.status == "pending" and job.not_before is None and agent in (None, job.agent)
        ]
        ready.sort(key=lambda job: (-job.priority, job.order))
        for job in ready[:count]:
            self._take(job, lease_ms)
        return ready[:count]

    def claim_named(self, job_id: str, lease_ms: int | None) -> ModelJob:
        job = self._job(job_id)
        self._give_back_expired(job, STRIKE_LIMIT)
        if job.status != "pending" or (job.not_before is not None and job.not_before > self.now):
            raise Refused("IllegalTransition")
        self._take(job, lease_ms)
        return job

    def _take(self, job: ModelJob, lease_ms: int | None) -> None:
        job.status, job.attempt, job.started, job.not_before = "running", job.attempt + 1, self.now, None
        job.lease_until = None if lease_ms is None else self.now + lease_ms

    def _give_back_expired(self, job: ModelJob, strike_limit: int) -> str | None:
        """Give back a job whose lease has expired, or end it at its last try; return what was done."""
        if job.status != "running" or job.lease_until is None or job.lease_until > self.now:
            return None
        return self._use_up_try(job, strike_limit, 0)

    def _use_up_try(self, job: ModelJob, strike_limit: int, delay_ms: int) -> str:
        if job.strikes + 1 >= (job.max_attempts or strike_limit):
            self._record(job, "error", job.attempt)
            return "ended"
        job.strikes += 1
        return self._give_back(job, delay_ms)

    def _give_back(self, job: ModelJob, delay_ms: int) -> str:
        job.status, job.lease_until = "pending", None
        job.not_before = self.now + delay_ms if delay_ms else None
        return "returned"

    def _live(self, job_id: str, attempt: int) -> ModelJob:
        job = self._job(job_id)
        if job.status != "running" or job.attempt != attempt:
            raise Refused("StaleAttempt")
        return job

    def _job(self, job_id: str) -> ModelJob:
        if job_id not in self.jobs:
            raise Refused("UnknownJob")
        return self.jobs[job_id]

    def renew(self, job_id: str, attempt: int, lease_ms: int) -> None:
        self._live(job_id, attempt).lease_until = self.now + lease_ms

    def release(self, job_id: str, attempt: int, delay_ms: int) -> None:
        self._give_back(self._live(job_id, attempt), delay_ms)

    def give_back(self, job_id: str, attempt: int, *, delay_ms: int, counts: bool, limit: int) -> str:
        job = self._live(job_id, attempt)
        return self._use_up_try(job, limit, delay_ms) if counts else self._give_back(job, delay_ms)

    def publish(self, job_id: str, kind: str, attempt: int | None) -> tuple[int, int]:
        """Append an event; return its seq and attempt."""
        job = self._job(job_id)
        if job.status in TERMINAL:
            raise Refused("IllegalTransition")
        if attempt is CURRENT_ATTEMPT and job.lease_until is not None:
            raise Refused("AttemptRequired")
        released = job.status == "pending" and job.attempt > 0
        if attempt is not CURRENT_ATTEMPT and (attempt != job.attempt or released):
            raise Refused("StaleAttempt")
        if attempt is CURRENT_ATTEMPT and released and kind not in TERMINAL:
            job.attempt += 1
        signed = job.attempt + (1 if released and attempt is CURRENT_ATTEMPT and kind in TERMINAL else 0)
        self._record(job, kind, signed)
        return len(job.events), signed

    def _record(self, job: ModelJob, kind: str, attempt: int) -> None:
        job.events.append(kind)
        job.attempts.append(attempt)
        job.last_event_at = self.now
        job.not_before = None
        if kind in TERMINAL:
            job.status, job.finished, job.lease_until = kind, self.now, None
        elif job.status == "pending":
            job.status, job.started = "running", self.now

    def cancel(self, job_id: str) -> None:
        job = self._job(job_id)
        if job.status in TERMINAL - {"cancelled"}:
            raise Refused("IllegalTransition")
        if job.status != "cancelled":
            job.status, job.finished, job.lease_until, job.not_before = "cancelled", self.now, None, None

    def rotate(self, job_id: str) -> int:
        """Rotate the token; return the new key's number."""
        job = self._job(job_id)
        if job.status in TERMINAL:
            raise Refused("IllegalTransition")
        job.kid += 1
        return job.kid

    def reap(self, strike_limit: int) -> list[tuple[str, str]]:
        done = []
        for job in self.jobs.values():
            if action := self._give_back_expired(job, strike_limit):
                done.append((job.job_id, action))
            elif job.status == "running" and (self._overdue(job) or self._idle(job)):
                self._record(job, "error", job.attempt)
                done.append((job.job_id, "ended"))
        return sorted(done)

    def _overdue(self, job: ModelJob) -> bool:
        return job.timeout_ms > 0 and job.started + job.timeout_ms <= self.now

    def _idle(self, job: ModelJob) -> bool:
        """A live lease and an open question protect a silent job."""
        protected = job.lease_until is not None or job.events[-1:] == ["permission_required"]
        silent = max(job.started, job.last_event_at) + job.idle_ms <= self.now
        return job.idle_ms > 0 and silent and not protected

    def prune(self, older_than_ms: int) -> list[str]:
        doomed = [
            job.job_id
            for job in self.jobs.values()
            if job.status in TERMINAL and job.finished < self.now - older_than_ms
        ]
        for job_id in doomed:
            del self.jobs[job_id]
        return sorted(doomed)

    def accept(self, job_id: str, seq: int, subscriber: str, window: int) -> tuple[str, list[int]]:
        """Accept a recorded event; return the verdict and the skipped seqs."""
        if job_id not in self.jobs:
            return "unknown_job", []
        subscriber_state = self.jobs[job_id].subscribers.get(subscriber, SubscriberModel())
        if seq in subscriber_state.accepted:
            return "duplicate", []
        if seq <= subscriber_state.last and subscriber_state.last - seq > window:
            return "replayed", []
        self.jobs[job_id].subscribers[subscriber] = subscriber_state
        missing = list(range(subscriber_state.last + 1, seq))
        subscriber_state.accepted.add(seq)
        subscriber_state.last = max(subscriber_state.last, seq)
        return "accepted", missing
