"""Running jobs: what a worker reports and gets in one transaction, workers, and attempts.

Used by the registry's verbs for workers and by ``jobdb.work``, as names of ``jobdb.model``; imports only its neighbours
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .times import format_time

if TYPE_CHECKING:
    from ..errors import JobdbError
    from .events import NewEvent
    from .jobs import Claim
    from .literals import ReapAction

AttemptKey = tuple[str, int]
"""A job's id and an attempt: what a worker's claim is known by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """A claimed job that its worker returns to the queue.

    Attributes:
        job_id: the job.
        attempt: the worker's claim.
        reason: why, a sentence for people; stored as the job's detail.
        delay_sec: how long nobody may claim it, in seconds.
        counts: one of the job's tries is used up; if it was the last, the job ends as error instead.
        limit: the number of tries of a job that has no ``max_attempts`` of its own.
        data: the data of the error event, if the job ends.
    """

    job_id: str
    attempt: int
    reason: str
    delay_sec: float = 0.0
    counts: bool = False
    limit: int = 3
    data: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.job_id, self.attempt))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkBatch:
    """The reports and requests of a worker, in one transaction.

    Attributes:
        worker_id: the worker's id.
        events: events of its jobs, each with its attempt; those of a job in their order.
        give_back: jobs that it returns to the queue.
        renew: claims whose lease it extends by ``lease_sec`` from now.
        claim: how many jobs it can take.
        worker: its name, for the claims.
        agent: only jobs of this agent.
        agent_session: only jobs of this session.
        lease_sec: the length of its leases, in seconds.
        announce: publish ``started`` for each new claim.
        log_dir: the folder of its logs, in which each attempt gets a file; None if it writes none.
        heartbeat: record that it is alive.
    """

    worker_id: str
    events: tuple[NewEvent, ...] = ()
    give_back: tuple[GiveBack, ...] = ()
    renew: tuple[AttemptKey, ...] = ()
    claim: int = 0
    worker: str = ""
    agent: str | None = None
    agent_session: str | None = None
    lease_sec: float = 60.0
    announce: bool = False
    log_dir: str | None = None
    heartbeat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkResult:
    """The result of a worker's batch.

    Attributes:
        claims: the jobs that it has now, highest priority first, then the oldest.
        refused: the error per claim of which an event, a return or a renewal was refused; the rest of the batch was
            recorded.
        returned: per claim that was given back, "returned", or "ended" if it had no try left.
    """

    claims: tuple[Claim, ...]
    refused: Mapping[AttemptKey, JobdbError]
    returned: Mapping[AttemptKey, ReapAction]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker: a process that claims jobs and runs them.

    Attributes:
        worker_id: a random id.
        name: its name, which its claims bear.
        agent: the agent whose jobs it takes; None: of all.
        host: its host's name.
        machine: a digest of its machine's id; empty if unknown.
        boot_id: the boot of its machine; empty if unknown.
        pid_namespace: the namespace of its process id; empty if unknown.
        pid: its process id.
        pid_started: when its process started, in clock ticks since the boot; 0 if unknown.
        slots: how many jobs it runs at a time.
        log_dir: the folder of its logs on its host; None if it writes none.
        lease_sec: the length of its leases, in seconds.
    """

    worker_id: str
    name: str
    agent: str | None
    host: str
    machine: str
    boot_id: str
    pid_namespace: str
    pid: int
    pid_started: int
    slots: int
    log_dir: str | None
    lease_sec: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker as the registry knows it.

    Attributes:
        info: the worker.
        started_at: when it started.
        heartbeat_at: when it was last heard of.
        running: the ids of the jobs that it holds, with their attempts.
    """

    info: WorkerInfo
    started_at: datetime
    heartbeat_at: datetime
    running: tuple[AttemptKey, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the worker as JSON-ready values, under the stable names of the command line's --json."""
        return {
            "worker_id": self.info.worker_id,
            "name": self.info.name,
            "agent": self.info.agent,
            "host": self.info.host,
            "pid": self.info.pid,
            "slots": self.info.slots,
            "log_dir": self.info.log_dir,
            "lease_sec": self.info.lease_sec,
            "started_at": format_time(self.started_at),
            "heartbeat_at": format_time(self.heartbeat_at),
            "running": [{"job_id": job_id, "attempt": attempt} for job_id, attempt in self.running],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that a worker made at a job.

    Attributes:
        attempt: the claim's number.
        worker: the worker's name.
        worker_id: the worker's id.
        host: its host's name.
        log: the path of its log on that host; None if it wrote none.
        started_at: when it was claimed.
    """

    attempt: int
    worker: str
    worker_id: str
    host: str
    log: str | None
    started_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return the attempt as JSON-ready values, under the stable names of the command line's --json."""
        return {
            "attempt": self.attempt,
            "worker": self.worker,
            "worker_id": self.worker_id,
            "host": self.host,
            "log": self.log,
            "started_at": format_time(self.started_at),
        }
