"""Verbs about who works on a job: claim, renew, release, reap, and the named leases."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ... import model
from ...errors import IllegalTransition, InvalidInput, KeyProblem, StaleAttempt, UnknownJob
from ...model import EventKind, JobStatus, from_ms
from .rows import shorten
from .sealer import KEY_ID
from .statements import CLAIMS, JOBS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...crypto.vault import Vault
    from ...model import Claim, Job, NewEvent, Reaped
    from ..store import Row, Store, Transaction


class ClaimVerbs:
    """Verbs about who works on a job."""

    store: Store
    vault: Vault

    if TYPE_CHECKING:

        def _publish(self, tx: Transaction, events: Sequence[NewEvent], jobs: dict[str, Any]) -> Any: ...

    def claim(
        self,
        *,
        worker: str,
        lease_ms: int | None,
        job_id: str | None,
        agent: str | None,
        agent_session: str | None,
    ) -> Claim | None:
        """Gives the oldest pending job of the highest priority to a worker, or the named one; None if there is none."""
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

    def renew(self, job_id: str, *, attempt: int, lease_ms: int) -> Claim:
        """Gives a live claim's lease a new end, counted from now."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            number = _require_claim(tx, job_id, attempt, "renew")[0]
            tx.run(CLAIMS.renew_lease, job=number, lease_until=tx.now_ms + lease_ms, now=tx.now_ms)
            load_job = _job_loader(tx, number)
        return _claim_from_job(load_job)

    def release(self, job_id: str, *, attempt: int) -> Job:
        """Gives a claimed job back: it is pending again and first in its queue."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            number = _require_claim(tx, job_id, attempt, "release")[0]
            tx.run(CLAIMS.release_job, job=number, now=tx.now_ms)
            load_job = _job_loader(tx, number)
        return load_job()

    def reap(self, *, strike_limit: int, limit: int) -> list[Reaped]:
        """Return jobs whose lease ran out to pending, up to a number of strikes; end jobs past their time limits.

        A lease that ends later than it can was taken while a clock was ahead: it has run out too. The limits of a job
        that began later than now count from now.
        """
        with self.store.write() as tx:
            now, done = tx.now_ms, []
            tx.run(CLAIMS.restart_limits, now=now, limit=limit)
            for row in tx.all(CLAIMS.overdue_jobs, now=now, limit=limit):
                job_id, reason, reason_code = _overdue_reason(row, now)
                self._end_job(tx, job_id, row[1], reason, reason_code)
                done.append(model.Reaped(job_id, "ended", reason))
            ended = {reaped.job_id for reaped in done}
            for job_id, number, strikes, worker, attempt in tx.all(CLAIMS.expired_leases, now=now, limit=limit):
                if job_id in ended:
                    continue
                reason = f"the lease of {worker} ran out at attempt {attempt}"
                if strikes + 1 >= strike_limit:
                    reason += f", strike {strikes + 1} of {strike_limit}"
                    self._end_job(tx, job_id, number, reason, "lease_expired")
                    done.append(model.Reaped(job_id, "ended", reason))
                else:
                    tx.run(CLAIMS.return_to_pending, job=number, now=now, detail=shorten(reason))
                    done.append(model.Reaped(job_id, "returned", reason))
            for job_id, number, worker, attempt in tx.all(CLAIMS.void_leases, now=now, limit=limit):
                if job_id not in ended:
                    reason = f"the lease of {worker} at attempt {attempt} ended too late: a clock was ahead"
                    tx.run(CLAIMS.return_void_lease, job=number, now=now, detail=shorten(reason))
                    done.append(model.Reaped(job_id, "returned", reason))
            return done

    def _end_job(self, tx: Transaction, job_id: str, number: int, reason: str, reason_code: str) -> None:
        event = model.NewEvent(job_id=job_id, event=EventKind.ERROR, detail=reason, data={"reason": reason_code})
        try:
            self._publish(tx, [event], {})
        except (KeyProblem, InvalidInput) as problem:
            # One job whose token is revoked or whose numbers are used up must not keep all others from being reaped.
            known = tx.one(TOKENS.sealing_key, name=KEY_ID)
            if isinstance(problem, KeyProblem) and known is not None and not self.vault.has_key(known[0]):
                raise  # it is this process that has not the database's key
            tx.run(CLAIMS.end_job, job=number, now=tx.now_ms, detail=shorten(reason))

    def acquire_lease(self, name: str, *, holder: str, lease_ms: int) -> bool:
        """Take or renew a named lease; False while another holder has it.

        Not one that ends later than it can: that was taken while a clock was ahead.
        """
        with self.store.write() as tx:
            until = tx.now_ms + lease_ms
            return tx.run(CLAIMS.acquire_lease, name=name, holder=holder, until_ms=until, now=tx.now_ms) > 0

    def release_lease(self, name: str, *, holder: str) -> None:
        """Gives a named lease back, if it is this holder's."""
        with self.store.write() as tx:
            tx.run(CLAIMS.release_lease, name=name, holder=holder)


def _job_loader(tx: Transaction, number: int) -> Callable[[], Job]:
    """The job as the view ``job_records`` has it; made an object when the lock is no longer held."""
    from .job_rows import job_from_row  # before the commit: an import needs a file descriptor, and may find none

    row = tx.one(JOBS.get_job_by_number, job=number)
    assert row is not None
    return partial(job_from_row, row)


def _claim_from_job(load_job: Callable[[], Job]) -> Claim:
    job = load_job()
    return model.Claim(job, job.attempt, job.worker or "", job.lease_expires_at)


def _refuse_claim(tx: Transaction, job_id: str) -> None:
    """Tells a missing job from one that cannot be claimed."""
    row = tx.one(JOBS.job_state, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    raise IllegalTransition(f"job {job_id} is {row[1]}, not pending, and cannot be claimed; see 'jobdb show {job_id}'")


def _require_claim(tx: Transaction, job_id: str, attempt: int, verb: str) -> Row:
    """The row of a running job whose present claim is ``attempt``."""
    row = tx.one(JOBS.job_state, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    status, current_attempt = JobStatus(row[1]), row[2]
    if attempt != current_attempt or status is not JobStatus.RUNNING:
        raise StaleAttempt(
            f"cannot {verb} job {job_id} with attempt {attempt}: it is {status} at attempt {current_attempt}. "
            f"Stop this work; 'jobdb show {job_id}' tells where it stands"
        )
    return row


def _overdue_reason(row: Row, now_ms: int) -> tuple[str, str, str]:
    """(job id, reason for a person, reason as a word) of a job past a time limit."""
    job_id, _number, timeout_sec, idle_timeout_sec, started, last_event_ms = row
    if timeout_sec > 0 and started + timeout_sec * 1000 <= now_ms:
        return job_id, f"timed out: running for more than {timeout_sec} s", "timeout"
    since = from_ms(max(started, last_event_ms or 0))
    return (
        job_id,
        f"idle: no event for more than {idle_timeout_sec} s, since {since:%Y-%m-%dT%H:%M:%SZ}",
        "idle",
    )
