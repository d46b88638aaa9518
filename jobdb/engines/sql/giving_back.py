"""The one rule for a try that is used up: the job is pending again, or ends as error if it was the last.

Called by claim and reap for expired leases, and by the batch of a worker, in their transactions. A job's ``strikes``
are its used-up tries; the limit is its ``max_attempts``, or the caller's if it has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ... import model
from ...errors import InvalidInput, KeyProblem
from ...model import EventKind
from .publish_batch import PublishBatch
from .rows import shorten
from .sealer import KEY_ID
from .statements import CLAIMS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...crypto.vault import Vault
    from ...model import Reaped
    from ..store import Transaction

DEFAULT_STRIKE_LIMIT = 3


class ExpiredLease(NamedTuple):
    """A row of ``expired_leases``: a claim whose worker is gone or silent."""

    job_id: str
    job: int
    strikes: int
    worker: str
    attempt: int
    max_attempts: int | None


def give_back(tx: Transaction, job: int, *, reason: str | None, delay_ms: int = 0, strike: bool = False) -> None:
    """Return a claimed job to pending.

    Args:
        tx: the transaction.
        job: jobs.id.
        reason: stored as the job's detail; None keeps the present one.
        delay_ms: how long it is not ready, from now; 0: it is ready at once.
        strike: count a try.
    """
    tx.run(
        CLAIMS.give_back,
        job=job,
        now=tx.now_ms,
        strike=int(strike),
        not_before=tx.now_ms + delay_ms if delay_ms > 0 else None,
        detail=shorten(reason) if reason else None,
    )


def give_back_expired(
    tx: Transaction, vault: Vault, expired: ExpiredLease, *, strike_limit: int, why: str | None = None
) -> Reaped:
    """Return a job with an expired lease to pending, or end it if this was its last try.

    Args:
        tx: the transaction, which has locked the job.
        vault: unseals its token.
        expired: the job.
        strike_limit: the number of tries of a job that has no ``max_attempts``.
        why: what happened to the worker; by default its lease ran out.

    Raises:
        KeyProblem: the job must end, and this process does not have the database's key.
    """
    reason = why or f"the lease of {expired.worker} ran out at attempt {expired.attempt}"
    strikes, limit = expired.strikes + 1, expired.max_attempts or strike_limit
    if strikes < limit:
        give_back(tx, expired.job, reason=reason, strike=True)
        return model.Reaped(expired.job_id, "returned", reason)
    reason += f", strike {strikes} of {limit}"
    end_job(tx, vault, expired.job_id, expired.job, expired.attempt, reason, {"reason": "lease_expired"})
    return model.Reaped(expired.job_id, "ended", reason)


def give_back_void(tx: Transaction, job_id: str, job: int, worker: str, attempt: int) -> Reaped:
    """Return a job to pending whose lease ends later than it can; its worker is not at fault: no try is counted."""
    reason = f"the lease of {worker} at attempt {attempt} ended too late: a clock was ahead"
    give_back(tx, job, reason=reason)
    return model.Reaped(job_id, "returned", reason)


def end_job(
    tx: Transaction, vault: Vault, job_id: str, job: int, attempt: int, reason: str, data: Mapping[str, Any]
) -> None:
    """End a job with an error event; without its data if they do not fit, without an event if none can be signed.

    Raises:
        KeyProblem: this process does not have the database's key.
    """
    for content in (data, {}):
        event = model.NewEvent(job_id=job_id, event=EventKind.ERROR, detail=reason, data=content, attempt=attempt)
        try:
            PublishBatch(tx, vault).publish([event])
        except KeyProblem:
            known = tx.one(TOKENS.sealing_key, name=KEY_ID)
            if known is not None and not vault.has_key(known[0]):
                raise
        except InvalidInput:
            continue
        else:
            return
    # A job whose token is revoked or whose seqs are used up must end, too, and keep no other job from being reaped.
    tx.run(CLAIMS.end_job, job=job, now=tx.now_ms, detail=shorten(reason))
