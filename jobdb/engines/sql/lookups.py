"""The lookup of a job by its id: its state, or only its primary key; an error if there is no such job.

Called by the verbs for claims, events, jobs and tokens. Only reads, in its caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...errors import UnknownJob
from .statements import JOBS

if TYPE_CHECKING:
    from ..store import Transaction


class JobState(NamedTuple):
    """A row of ``job_state``: the state that a verb checks before it changes a job.

    Attributes:
        job: jobs.id.
        status: the status, as stored.
        attempt: the current claim's number; 0 before the first.
        last_seq: the last event's seq; 0 before the first.
        worker: the worker that holds the claim.
        lease_until_ms: the end of its lease, Unix milliseconds; None without a lease.
        strikes: how many tries are used up.
        max_attempts: how many tries it has; None: a failure is final.
        not_before_ms: when it becomes ready, Unix milliseconds; None if it is.
    """

    job: int
    status: str
    attempt: int
    last_seq: int
    worker: str | None
    lease_until_ms: int | None
    strikes: int
    max_attempts: int | None
    not_before_ms: int | None


def require_job(tx: Transaction, job_id: str) -> JobState:
    """Read a job's state.

    Raises:
        UnknownJob: there is no job with that id.
    """
    row = tx.one(JOBS.job_state, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    return JobState._make(row)


def require_job_key(tx: Transaction, job_id: str) -> int:
    """Read only a job's primary key (jobs.id).

    Raises:
        UnknownJob: there is no job with that id.
    """
    row = tx.one(JOBS.job_number, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    key: int = row[0]
    return key
