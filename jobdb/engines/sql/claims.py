"""Verbs about who works on a job: claim, renew, release, and reap, which takes jobs back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...errors import IllegalTransition, InvalidInput, KeyProblem
from ...model import EventKind, JobStatus, from_ms
from ..verbs import verb
from .publish_batch import PublishBatch, stale_attempt
from .records import require_job
from .rows import shorten
from .sealer import KEY_ID
from .statements import CLAIMS, JOBS, TOKENS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ...crypto.vault import Vault
    from ...model import Claim, Job, Reaped
    from ..store import Transaction
    from .records import JobState


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


class ClaimVerbs(VerbGroup):
    """Verbs about who works on a job."""

    @verb
    def claim(
        self,
        *,
        worker: str,
        lease_ms: int | None,
        job_id: str | None,
        agent: str | None,
        agent_session: str | None,
    ) -> Claim | None:
        """Give the first pending job in the queue, or the named one, to a worker; return None if there is none."""
        with self.store.write() as tx:
            lease_until = None if lease_ms is None else tx.now_ms + lease_ms
            common = {"worker": worker, "lease_until": lease_until, "now": tx.now_ms}
            if job_id is not None:
                row = tx.one(CLAIMS.claim_job, job_id=job_id, **common)
                if row is None:
                    _refuse_claim(tx, job_id)
            elif agent_session is not None:
                row = tx.one(CLAIMS.claim_next_by_session, agent_session=agent_session, agent=agent, **common)
            elif agent is not None:
                row = tx.one(CLAIMS.claim_next_by_agent, agent=agent, **common)
            else:
                row = tx.one(CLAIMS.claim_next, **common)
            if row is None:
                return None
            load_job = _job_loader(tx, row[0])
        return _claim_from_job(load_job)

    @verb
    def renew(self, job_id: str, *, attempt: int, lease_ms: int) -> Claim:
        """Give a live claim's lease a new end, counted from now."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            job = _require_claim(tx, job_id, attempt, "renew").job
            tx.run(CLAIMS.renew_lease, job=job, lease_until=tx.now_ms + lease_ms, now=tx.now_ms)
            load_job = _job_loader(tx, job)
        return _claim_from_job(load_job)

    @verb
    def release(self, job_id: str, *, attempt: int) -> Job:
        """Give a claimed job back: it is pending again and first in its queue."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            job = _require_claim(tx, job_id, attempt, "release").job
            tx.run(CLAIMS.release_job, job=job, now=tx.now_ms)
            load_job = _job_loader(tx, job)
        return load_job()

    @verb
    def reap(self, *, strike_limit: int, limit: int) -> list[Reaped]:
        """Return jobs whose lease ran out to pending, up to a number of strikes; end jobs past their time limits.

        A lease that ends later than it can was taken while a clock was ahead: it has run out too. The limits of a job
        that began later than now count from now.
        """
        with self.store.write() as tx:
            now, done = tx.now_ms, []
            tx.run(CLAIMS.restart_limits, now=now, limit=limit)
            for overdue in map(_OverdueJob._make, tx.all(CLAIMS.overdue_jobs, now=now, limit=limit)):
                reason, reason_code = _overdue_reason(overdue, now)
                _end_job(tx, self.vault, overdue.job_id, overdue.job, reason, reason_code)
                done.append(model.Reaped(overdue.job_id, "ended", reason))
            ended = {reaped.job_id for reaped in done}
            for expired in map(_ExpiredLease._make, tx.all(CLAIMS.expired_leases, now=now, limit=limit)):
                if expired.job_id in ended:
                    continue
                reason = f"the lease of {expired.worker} ran out at attempt {expired.attempt}"
                strikes = expired.strikes + 1
                if strikes >= strike_limit:
                    reason += f", strike {strikes} of {strike_limit}"
                    _end_job(tx, self.vault, expired.job_id, expired.job, reason, "lease_expired")
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
    """End a job with an event of its own; without one where none can be signed."""
    event = model.NewEvent(job_id=job_id, event=EventKind.ERROR, detail=reason, data={"reason": reason_code})
    try:
        PublishBatch(tx, vault).publish([event])
    except (KeyProblem, InvalidInput) as problem:
        # One job whose token is revoked or whose numbers are used up must not keep all others from being reaped.
        known = tx.one(TOKENS.sealing_key, name=KEY_ID)
        if isinstance(problem, KeyProblem) and known is not None and not vault.has_key(known[0]):
            raise  # it is this process that has not the database's key
        tx.run(CLAIMS.end_job, job=job, now=tx.now_ms, detail=shorten(reason))


def _job_loader(tx: Transaction, job: int) -> Callable[[], Job]:
    """Read a job as the view ``job_records`` has it; return what makes the object when the lock is no longer held."""
    from .job_rows import job_from_row  # before the commit: an import needs a file descriptor, and may find none

    row = tx.one(JOBS.get_job_by_number, job=job)
    assert row is not None
    return partial(job_from_row, row)


def _claim_from_job(load_job: Callable[[], Job]) -> Claim:
    job = load_job()
    return model.Claim(job, job.attempt, job.worker or "", job.lease_expires_at)


def _refuse_claim(tx: Transaction, job_id: str) -> NoReturn:
    """Tell a missing job from one that cannot be claimed."""
    status = require_job(tx, job_id).status
    raise IllegalTransition(
        f"job {job_id} is {status}, not pending, and cannot be claimed",
        advice=f"see registry.get({job_id!r})",
        command=f"see 'jobdb show {job_id}'",
    )


def _require_claim(tx: Transaction, job_id: str, attempt: int, doing: str) -> JobState:
    """Return the state of a running job whose current claim is ``attempt``."""
    state = require_job(tx, job_id)
    status = JobStatus(state.status)
    if attempt != state.attempt or status is not JobStatus.RUNNING:
        raise stale_attempt(doing, job_id, attempt, status=status, current=state.attempt)
    return state


def _overdue_reason(job: _OverdueJob, now_ms: int) -> tuple[str, str]:
    """Return why a job is ended that is past a time limit: as a sentence, and as a word."""
    if job.timeout_sec > 0 and job.began_ms + job.timeout_sec * 1000 <= now_ms:
        return f"timed out: running for more than {job.timeout_sec} s", "timeout"
    since = from_ms(max(job.began_ms, job.last_event_ms or 0))
    return f"idle: no event for more than {job.idle_timeout_sec} s, since {since:%Y-%m-%dT%H:%M:%SZ}", "idle"
