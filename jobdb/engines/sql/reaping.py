"""The transaction of the verb reap: jobs whose lease has expired, and jobs past their time limits.

Called by the verb, which imports it on the first call: publishing does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...model import from_ms
from .giving_back import ExpiredLease, end_job, give_back_expired, give_back_void
from .statements import CLAIMS

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import Reaped
    from ..store import Transaction


class _OverdueJob(NamedTuple):
    """A row of ``overdue_jobs``: a running job past a time limit."""

    job_id: str
    job: int
    timeout_sec: int
    idle_timeout_sec: int
    began_ms: int
    last_event_ms: int | None
    attempt: int


def reap(tx: Transaction, vault: Vault, *, strike_limit: int, limit: int) -> list[Reaped]:
    """Give back or end jobs whose lease has expired, then end overdue jobs.

    Args:
        tx: the transaction.
        vault: unseals the tokens of the jobs that are ended.
        strike_limit: the number of expired leases that ends a job without a ``max_attempts`` of its own.
        limit: the maximum number of jobs of each kind.
    """
    now, done = tx.now_ms, []
    tx.run(CLAIMS.restart_limits, now=now, limit=limit)
    tx.run(CLAIMS.ready_void_delays, now=now, limit=limit)
    for expired in map(ExpiredLease._make, tx.all(CLAIMS.expired_leases, now=now, limit=limit)):
        done.append(give_back_expired(tx, vault, expired, strike_limit=strike_limit))
    for job_id, job, worker, attempt in tx.all(CLAIMS.void_leases, now=now, limit=limit):
        done.append(give_back_void(tx, job_id, job, worker, attempt))
    for overdue in map(_OverdueJob._make, tx.all(CLAIMS.overdue_jobs, now=now, limit=limit)):
        reason, reason_code = _overdue_reason(overdue, now)
        end_job(tx, vault, overdue.job_id, overdue.job, overdue.attempt, reason, {"reason": reason_code})
        done.append(model.Reaped(overdue.job_id, "ended", reason))
    return done


def _overdue_reason(job: _OverdueJob, now_ms: int) -> tuple[str, str]:
    """Return the reason for ending a job past a time limit, as a sentence and as a code."""
    if job.timeout_sec > 0 and job.began_ms + job.timeout_sec * 1000 <= now_ms:
        return f"timed out: running for more than {job.timeout_sec} s", "timeout"
    since = from_ms(max(job.began_ms, job.last_event_ms or 0))
    return f"idle: no event for more than {job.idle_timeout_sec} s, since {since:%Y-%m-%dT%H:%M:%SZ}", "idle"
