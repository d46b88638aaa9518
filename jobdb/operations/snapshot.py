"""Snapshot: counts, jobs and refusals at one point in time, most urgent first.

Called by ``jobdb watch``, at most several times a second; calls an open registry and keeps no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..engines.statements import Statement, StatementSet
from ..model import JobStatus, Question, Refusal, Verdict, WorkerRecord
from ..registry import Registry


class SnapshotStatements(StatementSet):
    """The statements of ``snapshot.sql``."""

    watch_jobs: Statement


SNAPSHOT = SnapshotStatements(Path(__file__).with_name("snapshot.sql"))

MAX_JOBS = 2000
"""The maximum number of jobs in a snapshot; the newest are shown."""

_MAX_REFUSALS = 5
_MAX_QUESTIONS = 10_000


class _JobRow(NamedTuple):
    """A row of the statement ``watch_jobs``."""

    job_id: str
    status: str
    agent: str
    agent_session: str | None
    attempt: int
    worker: str | None
    started_ms: int | None
    created_ms: int
    last_event: str | None
    last_event_ms: int | None
    timeout_sec: int
    idle_timeout_sec: int
    lease_until_ms: int | None
    finished_ms: int | None
    detail: str | None
    strikes: int
    max_attempts: int | None
    not_before_ms: int | None
    is_answered: bool | None


@dataclass(frozen=True, slots=True)
class WatchedJob:
    """A job as shown in the live view.

    Times are seconds before the snapshot, ``lease_left_sec`` and ``delay_sec`` seconds after it; limits are seconds, 0
    for none. ``strikes`` is the number of tries that are used up, of ``max_attempts``. ``questions`` are the open ones,
    the oldest first; ``is_answered`` tells that the last event asked a question that has been answered since.
    """

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
    strikes: int = 0
    max_attempts: int | None = None
    delay_sec: float = 0
    questions: tuple[Question, ...] = ()
    is_answered: bool = False

    @property
    def awaits_permission(self) -> bool:
        """True if the job waits for a person: it has an open question, or its last event demands a permission."""
        if self.status.terminal:
            return False
        return bool(self.questions) or (self.last_event == "permission_required" and not self.is_answered)

    @property
    def effective_idle_timeout_sec(self) -> int:
        """The idle limit that can end the job; 0 while a live lease or an open question protects it from that."""
        leased = self.lease_left_sec is not None and self.lease_left_sec > 0
        return 0 if leased or self.awaits_permission else self.idle_timeout_sec

    @property
    def limit_usage(self) -> float:
        """The used share of the job's tighter limit; from 1 on the limit is exceeded."""
        shares = [0.0]
        if self.timeout_sec and self.running_sec is not None:
            shares.append(self.running_sec / self.timeout_sec)
        if self.effective_idle_timeout_sec and self.idle_sec is not None:
            shares.append(self.idle_sec / self.effective_idle_timeout_sec)
        return max(shares)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a registry at one point in time.

    Attributes:
        taken_ms: when it was taken, Unix milliseconds.
        counts: the number of jobs per status.
        jobs: the jobs with the requested status.
        refusals: the latest refusals.
        verdicts: how often each verdict was given.
        outbox: the number of events that wait for the broker.
        workers: the recorded workers, the longest running first.
        open_questions: the number of questions that can be answered, of all jobs; counted up to 10,000.
    """

    taken_ms: int
    counts: dict[JobStatus, int]
    jobs: tuple[WatchedJob, ...]
    refusals: tuple[Refusal, ...]
    verdicts: dict[Verdict, int]
    outbox: int
    workers: tuple[WorkerRecord, ...] = ()
    open_questions: int = 0


def snapshot(registry: Registry, *, status: JobStatus = JobStatus.RUNNING, agent: str | None = None) -> Snapshot:
    """Return the current state of a registry.

    Args:
        registry: the open registry.
        status: the status of the jobs to show; at most 2,000, the newest.
        agent: show only jobs whose agent's name contains this text, ignoring case.

    Returns:
        The snapshot; jobs that wait for a person first, then, of running ones, those nearest to a limit.

    Example:
        with Registry.open("jobs.db") as registry:
            for job in snapshot(registry).jobs:
                print(job.job_id, job.running_sec, job.limit_usage)
    """
    with registry.store.read() as tx:
        now = tx.now_ms
        rows = tx.all(SNAPSHOT.watch_jobs, status=status.value, limit=MAX_JOBS)
    asked = registry.questions(limit=_MAX_QUESTIONS)
    questions: dict[str, list[Question]] = {}
    for question in asked:
        questions.setdefault(question.job_id, []).append(question)
    waiting, _oldest_ms = registry.engine.outbox_size()
    wanted = (agent or "").lower()
    jobs = [
        _watched_job(row, questions.get(row.job_id, ()), now)
        for row in map(_JobRow._make, rows)
        if wanted in row.agent.lower()
    ]
    if status is JobStatus.RUNNING:
        jobs.sort(key=lambda job: (not job.awaits_permission, -job.limit_usage, job.job_id))
    else:
        jobs.sort(key=lambda job: not job.questions)
    return Snapshot(
        taken_ms=now,
        counts=registry.count_by_status(),
        jobs=tuple(jobs),
        refusals=tuple(registry.refusals(limit=_MAX_REFUSALS)),
        verdicts=registry.verdict_counts(),
        outbox=waiting,
        workers=tuple(registry.workers()),
        open_questions=len(asked),
    )


def _watched_job(row: _JobRow, questions: Sequence[Question], now: int) -> WatchedJob:
    began_ms = row.started_ms
    if began_ms is None and row.status == JobStatus.RUNNING:
        began_ms = row.created_ms
    until_ms = row.finished_ms if row.finished_ms is not None else now
    last_sign_ms = max(row.last_event_ms or 0, began_ms or 0)
    return WatchedJob(
        job_id=row.job_id,
        status=JobStatus(row.status),
        agent=row.agent,
        session=row.agent_session,
        attempt=row.attempt,
        worker=row.worker,
        running_sec=None if began_ms is None else (until_ms - began_ms) / 1000,
        idle_sec=None if not last_sign_ms or row.finished_ms is not None else (now - last_sign_ms) / 1000,
        timeout_sec=row.timeout_sec,
        idle_timeout_sec=row.idle_timeout_sec,
        lease_left_sec=None if row.lease_until_ms is None else (row.lease_until_ms - now) / 1000,
        last_event=row.last_event,
        detail=row.detail,
        strikes=row.strikes,
        max_attempts=row.max_attempts,
        delay_sec=0 if row.not_before_ms is None else max(0, row.not_before_ms - now) / 1000,
        questions=tuple(questions),
        is_answered=bool(row.is_answered),
    )
