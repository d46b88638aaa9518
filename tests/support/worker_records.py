"""Workers as tests record them: their descriptions, without the processes."""

from __future__ import annotations

from typing import Any

from jobdb import EventKind, GiveBack, NewEvent, NewJob, Registry, WorkBatch, WorkerInfo, WorkResult


def worker_info(worker_id: str, **fields: Any) -> WorkerInfo:
    """Describe a worker of host1's current boot, with other values where ``fields`` has some."""
    described: dict[str, Any] = {
        "worker_id": worker_id,
        "name": "host1:4711",
        "agent": None,
        "host": "host1",
        "machine": "machine1",
        "boot_id": "boot2",
        "pid_namespace": "pid:[1]",
        "pid": 4711,
        "pid_started": 100,
        "slots": 8,
        "log_dir": None,
        "lease_sec": 60.0,
    }
    return WorkerInfo(**{**described, **fields})


def register_jobs(
    registry: Registry,
    *priorities: int,
    agent: str = "codex",
    session: str | None = None,
    max_attempts: int | None = None,
) -> list[str]:
    """Register a job of each priority; return their ids."""
    new = [
        NewJob(agent=agent, prompt="", priority=priority, agent_session=session, max_attempts=max_attempts)
        for priority in priorities
    ]
    return [job.job_id for job in registry.register_many(new)]


def batch(registry: Registry, worker_id: str = "w1", **fields: Any) -> WorkResult:
    """Record a batch of a worker."""
    return registry.work_batch(WorkBatch(worker_id=worker_id, worker=f"host1:{worker_id}", **fields))


def claimed_ids(result: WorkResult) -> list[str]:
    return [claim.job_id for claim in result.claims]


def event(job_id: str, kind: str = "progress", attempt: int = 1, **fields: Any) -> NewEvent:
    return NewEvent(job_id=job_id, event=EventKind(kind), attempt=attempt, **fields)


def back(job_id: str, attempt: int = 1, **fields: Any) -> GiveBack:
    return GiveBack(**{"job_id": job_id, "attempt": attempt, "reason": "the agent stopped", **fields})
