"""A plain in-memory model of the registry, as the design describes it; the stateful machine compares both step by step.

Pure Python over dicts. It predicts each verb's answer or the name of the error. Written from the design, not from the
engine: where the two differ, one of them is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TERMINAL = {"completed", "error", "cancelled"}
CURRENT_ATTEMPT = None
"""An event without an attempt belongs to the current one."""


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
    status: str = "pending"
    attempt: int = 0
    strikes: int = 0
    lease_until: int | None = None
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

    def register(self, job_id: str, *, priority: int, agent: str, timeout_sec: int, idle_sec: int) -> None:
        self._order += 1
        self.jobs[job_id] = ModelJob(job_id, self._order, priority, agent, timeout_sec * 1000, idle_sec * 1000)

    def claim(self, agent: str | None, lease_ms: int | None) -> ModelJob | None:
        waiting = [job for job in self.jobs.values() if job.status == "pending" and agent in (None, job.agent)]
        if not waiting:
            return None
        job = min(waiting, key=lambda job: (-job.priority, job.order))
        job.status, job.attempt, job.started = "running", job.attempt + 1, self.now
        job.lease_until = None if lease_ms is None else self.now + lease_ms
        return job

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

    def release(self, job_id: str, attempt: int) -> None:
        job = self._live(job_id, attempt)
        job.status, job.lease_until = "pending", None

    def publish(self, job_id: str, kind: str, attempt: int | None) -> tuple[int, int]:
        """Append an event; return its seq and attempt."""
        job = self._job(job_id)
        if job.status in TERMINAL:
            raise Refused("IllegalTransition")
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
        if kind in TERMINAL:
            job.status, job.finished, job.lease_until = kind, self.now, None
        elif job.status == "pending":
            job.status, job.started = "running", self.now

    def cancel(self, job_id: str) -> None:
        job = self._job(job_id)
        if job.status in TERMINAL - {"cancelled"}:
            raise Refused("IllegalTransition")
        if job.status != "cancelled":
            job.status, job.finished, job.lease_until = "cancelled", self.now, None

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
            if job.status != "running":
                continue
            overdue = job.timeout_ms and job.started + job.timeout_ms <= self.now
            idle = job.idle_ms and max(job.started, job.last_event_at) + job.idle_ms <= self.now
            expired = job.lease_until is not None and job.lease_until <= self.now
            if overdue or idle or (expired and job.strikes + 1 >= strike_limit):
                self._record(job, "error", job.attempt)
                done.append((job.job_id, "ended"))
            elif expired:
                job.status, job.lease_until, job.strikes = "pending", None, job.strikes + 1
                done.append((job.job_id, "returned"))
        return sorted(done)

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
