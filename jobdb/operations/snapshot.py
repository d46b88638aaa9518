"""What the live view shows, as data: one moment's counts, jobs and refusals, put in the order a person needs.

Called by ``jobdb watch`` several times a second at most; reads in one transaction and keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..engines.statements import Statement, StatementSet
from ..model import JobStatus, Refusal, Verdict
from ..registry import Registry


class SnapshotStatements(StatementSet):
    """The statements of ``snapshot.sql``."""

    watch_jobs: Statement


SNAPSHOT = SnapshotStatements(Path(__file__).with_name("snapshot.sql"))


MAX_JOBS = 2000


@dataclass(frozen=True, slots=True)
class WatchedJob:
    """One line of the live view. Times are seconds before the snapshot; limits are seconds, 0 for none."""

    job_id: str
    status: JobStatus
    agent: str
    session: str | None
    attempt: int
    worker: str | None
    running_sec: float | None
    idle_sec: float | None
    timeout_sec: int
    idle_timeout_sec: int
    lease_left_sec: float | None
    last_event: str | None
    detail: str | None

    @property
    def awaits_permission(self) -> bool:
        """It waits for a person's permission."""
        return self.last_event == "permission_required" and not self.status.terminal

    @property
    def limit_usage(self) -> float:
        """How much of its tighter limit is used up; 1 and more: over it."""
        shares = [0.0]
        if self.timeout_sec and self.running_sec is not None:
            shares.append(self.running_sec / self.timeout_sec)
        if self.idle_timeout_sec and self.idle_sec is not None:
            shares.append(self.idle_sec / self.idle_timeout_sec)
        return max(shares)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment's state."""

    taken_ms: int
    counts: dict[JobStatus, int]
    jobs: tuple[WatchedJob, ...]
    refusals: tuple[Refusal, ...]
    verdicts: dict[Verdict, int]
    outbox: int


def snapshot(registry: Registry, *, status: JobStatus = JobStatus.RUNNING, agent: str | None = None) -> Snapshot:
    """The state of now.

    Args:
        registry: the open registry.
        status: which jobs to show; at most 2,000, the newest.
        agent: only jobs whose agent's name contains this.

    Returns:
        The snapshot; jobs that ask for permission first, then those nearest to a limit.
    """
    engine = registry.engine
    with registry.store.read() as tx:
        now = tx.now_ms
        rows = tx.all(SNAPSHOT.watch_jobs, status=status.value, limit=MAX_JOBS)
    found = []
    for row in rows:
        (
            job_id,
            state,
            name,
            session,
            attempt,
            worker,
            started,
            created,
            event,
            last_event_ms,
            timeout,
            idle,
            lease,
            end,
            detail,
        ) = row
        if agent and agent.lower() not in name.lower():
            continue
        until = end if end is not None else now
        began = started if started is not None else (created if state == "running" else None)
        last_sign_ms = max(last_event_ms or 0, began or 0) or None
        found.append(
            WatchedJob(
                job_id=job_id,
                status=JobStatus(state),
                agent=name,
                session=session,
                attempt=attempt,
                worker=worker,
                running_sec=None if began is None else (until - began) / 1000,
                idle_sec=None if last_sign_ms is None or end is not None else (now - last_sign_ms) / 1000,
                timeout_sec=timeout,
                idle_timeout_sec=idle,
                lease_left_sec=None if lease is None else (lease - now) / 1000,
                last_event=event,
                detail=detail,
            )
        )
    if status is JobStatus.RUNNING:
        found.sort(key=lambda job: (not job.awaits_permission, -job.limit_usage, job.job_id))
    return Snapshot(
        taken_ms=now,
        counts=registry.count_by_status(),
        jobs=tuple(found),
        refusals=tuple(registry.refusals(limit=5)),
        verdicts=registry.verdict_counts(),
        outbox=engine.outbox_size()[0],
    )
