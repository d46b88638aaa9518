"""The transaction of the verb reap: jobs whose lease has expired, and jobs past their time limits.

Called by the verb, which imports it on the first call: publishing does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...errors import InvalidInput, KeyProblem
from ...model import EventKind, from_ms
from .publish_batch import PublishBatch
from .rows import shorten
from .sealer import KEY_ID
from .statements import CLAIMS, TOKENS

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


class _ExpiredLease(NamedTuple):
    """A row of ``expired_leases``."""

    job_id: str
    job: int
    strikes: int
    worker: str
    attempt: int


class _VoidLease(NamedTuple):
    """A row of ``void_leases``: a lease that ends later than it can."""

    job_id: str
    job: int
    worker: str
    attempt: int


def reap(tx: Transaction, vault: Vault, *, strike_limit: int, limit: int) -> list[Reaped]:
    """End overdue jobs, and return or end jobs whose lease has expired.

    Args:
        tx: the transaction.
        vault: unseals the tokens of the jobs that are ended.
        strike_limit: the number of expired leases that ends a job.
        limit: the maximum number of jobs of each kind.
    """
    now, done = tx.now_ms, []
    tx.run(CLAIMS.restart_limits, now=now, limit=limit)
    for overdue in map(_OverdueJob._make, tx.all(CLAIMS.overdue_jobs, now=now, limit=limit)):
        reason, reason_code = _overdue_reason(overdue, now)
        _end_job(tx, vault, overdue.job_id, overdue.job, reason, reason_code)
        done.append(model.Reaped(overdue.job_id, "ended", reason))
    ended = {reaped.job_id for reaped in done}
    for expired in map(_ExpiredLease._make, tx.all(CLAIMS.expired_leases, now=now, limit=limit)):
        if expired.job_id in ended:
            continue
        reason = f"the lease of {expired.worker} ran out at attempt {expired.attempt}"
        strikes = expired.strikes + 1
        if strikes >= strike_limit:
            reason += f", strike {strikes} of {strike_limit}"
            _end_job(tx, vault, expired.job_id, expired.job, reason, "lease_expired")
            done.append(model.Reaped(expired.job_id, "ended", reason))
        else:
            tx.run(CLAIMS.return_to_pending, job=expired.job, now=now, detail=shorten(reason))
            done.append(model.Reaped(expired.job_id, "returned", reason))
    for void in map(_VoidLease._make, tx.all(CLAIMS.void_leases, now=now, limit=limit)):
        if void.job_id not in ended:
            reason = f"the lease of {void.worker} at attempt {void.attempt} ended too late: a clock was ahead"
            tx.run(CLAIMS.return_void_lease, job=void.job, now=now, detail=shorten(reason))
            done.append(model.Reaped(void.job_id, "returned", reason))
    return done


def _end_job(tx: Transaction, vault: Vault, job_id: str, job: int, reason: str, reason_code: str) -> None:
    """End a job with an error event, or without an event if none can be signed."""
    event = model.NewEvent(job_id=job_id, event=EventKind.ERROR, detail=reason, data={"reason": reason_code})
    try:
        PublishBatch(tx, vault).publish([event])
    except (KeyProblem, InvalidInput) as problem:
        # One job whose token is revoked or whose seqs are used up must not keep all others from being reaped.
        known = tx.one(TOKENS.sealing_key, name=KEY_ID)
        if isinstance(problem, KeyProblem) and known is not None and not vault.has_key(known[0]):
            raise  # this process does not have the database's key
        tx.run(CLAIMS.end_job, job=job, now=tx.now_ms, detail=shorten(reason))


def _overdue_reason(job: _OverdueJob, now_ms: int) -> tuple[str, str]:
    """Return the reason for ending a job past a time limit, as a sentence and as a code."""
    if job.timeout_sec > 0 and job.began_ms + job.timeout_sec * 1000 <= now_ms:
        return f"timed out: running for more than {job.timeout_sec} s", "timeout"
    since = from_ms(max(job.began_ms, job.last_event_ms or 0))
    return f"idle: no event for more than {job.idle_timeout_sec} s, since {since:%Y-%m-%dT%H:%M:%SZ}", "idle"
