"""The verbs for jobs as records: register, get, list, cancel, prune, and the settings of the database.

Called by the registry's ``jobs.py``, and by the doctor for settings, through the engine. Calls the store and, to
register, ``registration``; never a driver.
"""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING

from ...errors import IllegalTransition, InvalidInput, UnknownJob
from ...model import JobStatus
from ..verbs import verb
from .job_updates import run_each
from .lookups import require_job, require_job_key
from .rows import shorten
from .statements import JOBS, TOKENS
from .token_reuse import is_generated_id
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...model import Job, JobFilter, NewJob
    from ..store import Row, Transaction

_ABOVE_ALL_KEYS = 2**62


class JobVerbs(VerbGroup):
    """The verbs for jobs as records."""

    @verb
    def register(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Record new jobs with their tokens; all or none. A known idempotency key returns the job it was used for."""
        from .registration import Registration

        with self.store.write() as tx:
            batch = Registration(tx, self.vault, self.reuse_guard)
            for job in jobs:
                batch.add(job)
            batch.flush()
        batch.tokens.warn_if_shared()
        return batch.jobs()

    @verb
    def get(self, job_id: str) -> Job:
        """Return one job; raise UnknownJob if it does not exist."""
        with self.store.read() as tx:
            return _read_job(tx, job_id)

    @verb
    def list_jobs(self, job_filter: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        """Return a page of jobs, newest first, starting after the job ``after``."""
        from .job_rows import jobs_from_rows

        with self.store.read() as tx:
            below = _ABOVE_ALL_KEYS if after is None else require_job_key(tx, after)
            rows = _page(tx, job_filter, below, limit)
        return jobs_from_rows(rows)

    @verb
    def cancel(self, job_id: str, *, reason: str) -> Job:
        """Cancel a pending or running job. Cancelling a cancelled job changes nothing and is not an error."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            state = require_job(tx, job_id)
            status = JobStatus(state.status)
            if status.terminal and status is not JobStatus.CANCELLED:
                raise IllegalTransition(
                    f"job {job_id} has ended as {status} and cannot be cancelled",
                    advice="register a new job to do it again",
                )
            if not status.terminal:
                tx.run(JOBS.cancel_job, job=state.job, now=tx.now_ms, detail=shorten(reason))
            return _read_job(tx, job_id)

    @verb
    def prune(self, *, finished_before_ms: int, limit: int) -> list[str]:
        """Delete up to ``limit`` jobs that ended before a time and have nothing left to deliver; return their ids."""
        with self.store.write() as tx:
            candidates = tx.all(JOBS.prune_candidates, before=finished_before_ms, limit=limit)
            tombstones = []
            for job, job_id, kid, unremembered in candidates:
                if unremembered or not kid or not is_generated_id(job_id):
                    tombstones.append({"job_id": job_id, "unremembered": int(unremembered), "now": tx.now_ms})
                tx.run(JOBS.delete_verdict_counts, job=job)
                tx.run(JOBS.delete_job, job=job)
            run_each(tx, TOKENS.upsert_tombstone, tombstones)
            return [job_id for _job, job_id, _kid, _unremembered in candidates]

    @verb
    def count_by_status(self) -> dict[JobStatus, int]:
        """Count the jobs of each status."""
        with self.store.read() as tx:
            counted = {JobStatus(status): count for status, count in tx.all(JOBS.count_by_status)}
        return {status: counted.get(status, 0) for status in JobStatus}

    @verb
    def setting(self, name: str) -> str | None:
        """Return a setting of this database; None if it is not set."""
        with self.store.read() as tx:
            row = tx.one(JOBS.get_setting, name=name)
            return None if row is None else row[0]

    @verb
    def put_setting(self, name: str, value: str) -> None:
        """Store a setting of this database, replacing an earlier value."""
        if not name:
            raise InvalidInput("a setting needs a name")
        with self.store.write() as tx:
            tx.run(JOBS.put_setting, name=name, value=value)


def _page(tx: Transaction, job_filter: JobFilter, below: int, limit: int) -> Iterable[Row]:
    common = {"below": below, "limit": limit, "agent_session": job_filter.agent_session}
    if not job_filter.statuses and job_filter.agent is None:
        return tx.all(JOBS.list_jobs, **common)
    # Each status is a contiguous range of an index, in the order of the page: merging them needs no sort.
    from .job_rows import record_id

    pages = []
    for status in job_filter.statuses or tuple(JobStatus):
        if job_filter.agent is None:
            pages.append(tx.all(JOBS.list_jobs_by_status, status=status.value, **common))
        else:
            pages.append(tx.all(JOBS.list_jobs_by_agent, status=status.value, agent=job_filter.agent, **common))
    merged = heapq.merge(*pages, key=record_id, reverse=True)
    return islice(merged, limit)


def _read_job(tx: Transaction, job_id: str) -> Job:
    from .job_rows import job_from_row

    row = tx.one(JOBS.get_job, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    return job_from_row(row)
