"""The verbs for workers: the batch of a worker, its registration and heartbeat, attempts, and what dead workers leave.

Called by the registry's ``workers.py``, through the engine. Calls the store, never a driver.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ... import model
from ...model import JobStatus, from_ms
from ..verbs import verb
from .giving_back import DEFAULT_STRIKE_LIMIT, ExpiredLease, give_back_expired
from .lookups import require_job_key
from .statements import JOBS, WORKERS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...model import Attempt, AttemptKey, Reaped, WorkBatch, WorkerInfo, WorkerRecord, WorkResult
    from ..store import Row, Transaction

_FORGET_MS = 7 * 86_400_000
"""The time without a heartbeat after which a worker's row is deleted, in milliseconds."""
_ANY_TIME_MS = 2**53


class WorkerVerbs(VerbGroup):
    """The verbs for workers."""

    @verb
    def work_batch(self, batch: WorkBatch) -> WorkResult:
        """Record a worker's events, returns and renewals, and claim jobs for it; what is refused stops nothing else."""
        from .job_rows import jobs_from_rows
        from .work_batch import record_batch

        with self.store.write() as tx:
            recorded = record_batch(tx, self.vault, batch)
        while recorded.again:
            more = model.WorkBatch(**{name: getattr(batch, name) for name in _CLAIMING})
            with self.store.write() as tx:
                found = record_batch(tx, self.vault, more)
            recorded = recorded._replace(claimed=found.claimed, again=found.again)
        claims = tuple(
            model.Claim(job, job.attempt, job.worker or "", job.lease_expires_at)
            for job in jobs_from_rows(recorded.claimed)
        )
        return model.WorkResult(claims=claims, refused=recorded.refused, returned=recorded.returned)

    @verb
    def claim_states(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, JobStatus | None]:
        """Return what became of claims: the job's status, or None if it has another attempt or none now."""
        job_ids = json.dumps(sorted({job_id for job_id, _attempt in keys}))
        with self.store.read() as tx:
            rows = tx.all(JOBS.job_states, job_ids=job_ids)
        found = {(job_id, attempt): JobStatus(status) for job_id, status, attempt in rows}
        return {key: None if found.get(key) is JobStatus.PENDING else found.get(key) for key in keys}

    @verb
    def add_worker(self, info: WorkerInfo) -> None:
        """Record a worker."""
        with self.store.write() as tx:
            tx.run(
                WORKERS.put_worker,
                worker_id=info.worker_id,
                name=info.name,
                agent=info.agent,
                host=info.host,
                machine=info.machine,
                boot_id=info.boot_id,
                pid_namespace=info.pid_namespace,
                pid=info.pid,
                pid_started=info.pid_started,
                slots=info.slots,
                log_dir=info.log_dir,
                lease_ms=round(info.lease_sec * 1000),
                now=tx.now_ms,
            )

    @verb
    def remove_worker(self, worker_id: str) -> None:
        """Delete a worker's row, if there is one."""
        with self.store.write() as tx:
            tx.run(WORKERS.delete_worker, worker_id=worker_id)

    @verb
    def workers(self) -> list[WorkerRecord]:
        """Return all workers, the longest running first, each with the jobs that it holds."""
        with self.store.read() as tx:
            rows = tx.all(WORKERS.list_workers)
            running: dict[str, list[AttemptKey]] = {}
            for worker_id, job_id, attempt in tx.all(WORKERS.running_attempts) if rows else ():
                running.setdefault(worker_id, []).append((job_id, attempt))
        return [_worker_record(row, tuple(running.get(row[0], ()))) for row in rows]

    @verb
    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the recorded attempts of a job, in order."""
        with self.store.read() as tx:
            rows = tx.all(WORKERS.list_attempts, job=require_job_key(tx, job_id))
        found = []
        for attempt, worker, worker_id, host, log, started_ms in rows:
            started_at = from_ms(started_ms)
            assert started_at is not None
            found.append(
                model.Attempt(
                    attempt=attempt, worker=worker, worker_id=worker_id, host=host, log=log, started_at=started_at
                )
            )
        return found

    @verb
    def return_jobs_of_dead_workers(self, info: WorkerInfo, *, dead: Sequence[str], uptime_ms: int) -> list[Reaped]:
        """Give back the jobs of workers of this host that are known to be dead, and delete the workers' rows.

        Args:
            info: the worker that asks: its host, machine and boot.
            dead: ids of workers of this boot whose process is gone.
            uptime_ms: the time since this host's boot, in milliseconds.
        """
        done: list[Reaped] = []
        with self.store.write() as tx:
            lost = [(worker_id, "its process is gone", _ANY_TIME_MS) for worker_id in dead]
            if info.machine and info.boot_id:
                # A clone of this machine may share its name and id. But it renews its leases, also after our boot.
                booted_ms = tx.now_ms - uptime_ms
                rows = tx.all(WORKERS.workers_before_reboot, host=info.host, machine=info.machine, boot_id=info.boot_id)
                lost += [(worker_id, "its host was restarted", booted_ms) for (worker_id,) in rows]
            for worker_id, why, renewed_before in lost:
                rows = tx.all(WORKERS.jobs_of_worker, worker_id=worker_id, renewed_before=renewed_before)
                for expired in map(ExpiredLease._make, rows):
                    reason = f"worker {expired.worker} was lost at attempt {expired.attempt}: {why}"
                    done.append(
                        give_back_expired(tx, self.vault, expired, strike_limit=DEFAULT_STRIKE_LIMIT, why=reason)
                    )
                if not _has_jobs(tx, worker_id):
                    tx.run(WORKERS.delete_worker, worker_id=worker_id)
            tx.run(WORKERS.delete_silent_workers, before=tx.now_ms - _FORGET_MS)
        return done


_CLAIMING = ("worker_id", "claim", "worker", "agent", "agent_session", "lease_sec", "announce", "log_dir")
"""The fields of a batch that matter when it asks for jobs only."""


def _has_jobs(tx: Transaction, worker_id: str) -> bool:
    return bool(tx.all(WORKERS.jobs_of_worker, worker_id=worker_id, renewed_before=_ANY_TIME_MS))


def _worker_record(row: Row, running: tuple[AttemptKey, ...]) -> WorkerRecord:
    *facts, lease_ms, started_ms, heartbeat_ms = row
    names = (
        "worker_id",
        "name",
        "agent",
        "host",
        "machine",
        "boot_id",
        "pid_namespace",
        "pid",
        "pid_started",
        "slots",
        "log_dir",
    )
    started_at, heartbeat_at = from_ms(started_ms), from_ms(heartbeat_ms)
    assert started_at is not None and heartbeat_at is not None
    return model.WorkerRecord(
        info=model.WorkerInfo(**dict(zip(names, facts, strict=True)), lease_sec=lease_ms / 1000),
        started_at=started_at,
        heartbeat_at=heartbeat_at,
        running=running,
    )
