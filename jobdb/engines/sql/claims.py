"""The verbs for claims: claim, renew, release, and reap, which returns or ends jobs that have run out of time.

Called by the registry's ``claims.py``, through the engine. Calls the store, never a driver.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...errors import IllegalTransition, KeyProblem
from ...model import JobStatus, from_ms
from ..verbs import verb
from .giving_back import DEFAULT_STRIKE_LIMIT, ExpiredLease, give_back, give_back_expired, give_back_void
from .lookups import require_job
from .publish_batch import attempt_required, stale_attempt
from .statements import CLAIMS, JOBS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...crypto.vault import Vault
    from ...errors import JobdbError
    from ...model import Claim, Job, Reaped
    from ..store import Transaction
    from .lookups import JobState

CLAIM_STEP = 100
"""The number of due jobs, and of expired leases, that a claim returns to the queue in one transaction."""


class ClaimVerbs(VerbGroup):
    """The verbs for claims."""

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
        """Claim the first ready job in the queue, or the named one, for a worker; return None if none is ready."""
        while True:
            with self.store.write() as tx:
                lease_until = None if lease_ms is None else tx.now_ms + lease_ms
                number: int | None
                refusal = None
                if job_id is not None:
                    number, refusal = _claim_named(tx, self.vault, job_id, worker, lease_until)
                    again = False
                else:
                    again = return_expired(tx, self.vault)
                    queue = Queue(worker, lease_until, agent, agent_session)
                    number = next(iter(queue.claim(tx, 1)), None)
                load_job = None if number is None else job_loader(tx, number)
            if load_job is not None:
                return claim_from_job(load_job)
            if refusal is not None:
                raise refusal
            if not again:
                return None

    @verb
    def next_ready_ms(self) -> int | None:
        """Return in how many milliseconds time alone makes a job claimable: a delay or a lease ends; None if none."""
        with self.store.read() as tx:
            row = tx.one(CLAIMS.next_ready)
            now = tx.now_ms
        assert row is not None
        times = [moment for moment in row if moment is not None]
        return max(0, min(times) - now) if times else None

    @verb
    def renew(self, job_id: str, *, attempt: int | None, lease_ms: int) -> Claim:
        """Extend the lease of a current claim, counted from now."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            job = require_claim(tx, job_id, attempt, "renew").job
            tx.run(CLAIMS.renew_lease, job=job, lease_until=tx.now_ms + lease_ms, now=tx.now_ms)
            load_job = job_loader(tx, job)
        return claim_from_job(load_job)

    @verb
    def release(self, job_id: str, *, attempt: int | None, delay_ms: int, reason: str | None) -> Job:
        """Release a claimed job: it is pending again and returns to its place in the queue, after a delay if any."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            job = require_claim(tx, job_id, attempt, "release").job
            give_back(tx, job, reason=reason, delay_ms=delay_ms)
            load_job = job_loader(tx, job)
        return load_job()

    @verb
    def reap(self, *, strike_limit: int, limit: int) -> list[Reaped]:
        """Return jobs whose lease has expired to pending, up to a number of strikes; then end overdue jobs.

        A lease that ends later than it can was granted while a clock was ahead: it counts as expired. If a job began
        later than now, its time limits count from now.
        """
        from .reaping import reap

        with self.store.write() as tx:
            return reap(tx, self.vault, strike_limit=strike_limit, limit=limit)


class Queue(NamedTuple):
    """The jobs that a worker claims from.

    Attributes:
        worker: its name.
        lease_until: the end of the lease, Unix milliseconds; None: the claim never expires.
        agent: only jobs of this agent.
        agent_session: only jobs of this session.
    """

    worker: str
    lease_until: int | None
    agent: str | None
    agent_session: str | None

    def claim(self, tx: Transaction, count: int) -> list[int]:
        """Claim up to ``count`` ready jobs; return their primary keys."""
        common = {"worker": self.worker, "lease_until": self.lease_until, "now": tx.now_ms, "count": count}
        if self.agent_session is not None:
            rows = tx.all(CLAIMS.claim_next_by_session, agent_session=self.agent_session, agent=self.agent, **common)
        elif self.agent is not None:
            rows = tx.all(CLAIMS.claim_next_by_agent, agent=self.agent, **common)
        else:
            rows = tx.all(CLAIMS.claim_next, **common)
        return [number for (number,) in rows]


def return_expired(tx: Transaction, vault: Vault) -> bool:
    """Make due jobs ready and give back expired leases, a bounded number of each; return True if there may be more.

    Time makes jobs claimable, and no process has to watch it: whoever claims does this first.
    """
    blockers = tx.one(CLAIMS.claim_blockers, now=tx.now_ms)
    assert blockers is not None
    due, expired_leases = blockers
    more = False
    if due:
        more = tx.run(CLAIMS.ready_due_jobs, now=tx.now_ms, limit=CLAIM_STEP) == CLAIM_STEP
    if expired_leases:
        expired = tx.all(CLAIMS.expired_leases, now=tx.now_ms, limit=CLAIM_STEP)
        returned = 0
        for row in expired:
            # A job that must end is left to reap if this process does not have the database's key.
            with suppress(KeyProblem):
                give_back_expired(tx, vault, ExpiredLease._make(row), strike_limit=DEFAULT_STRIKE_LIMIT)
                returned += 1
        more = more or returned == CLAIM_STEP
    return more


def _claim_named(
    tx: Transaction, vault: Vault, job_id: str, worker: str, lease_until: int | None
) -> tuple[int | None, JobdbError | None]:
    """Claim one job; return its primary key, or an error to raise after the commit, which may end the job."""
    row = tx.one(CLAIMS.expired_lease_of, job_id=job_id, now=tx.now_ms)
    if row is not None:
        expired = ExpiredLease._make(row[:-1])
        if row[-1] > tx.now_ms:
            give_back_void(tx, job_id, expired.job, expired.worker, expired.attempt)
        else:
            give_back_expired(tx, vault, expired, strike_limit=DEFAULT_STRIKE_LIMIT)
    claimed = tx.one(CLAIMS.claim_job, job_id=job_id, worker=worker, lease_until=lease_until, now=tx.now_ms)
    return (None, _refused_claim(tx, job_id)) if claimed is None else (claimed[0], None)


def job_loader(tx: Transaction, job: int) -> Callable[[], Job]:
    """Read a job's record; return a function that builds the object after the lock has been released."""
    from .job_rows import job_from_row  # before the commit: an import needs a file descriptor, and none may be left

    row = tx.one(JOBS.get_job_by_number, job=job)
    assert row is not None
    return partial(job_from_row, row)


def claim_from_job(load_job: Callable[[], Job]) -> Claim:
    job = load_job()
    return model.Claim(job, job.attempt, job.worker or "", job.lease_expires_at)


def _refused_claim(tx: Transaction, job_id: str) -> IllegalTransition:
    """Return the error for a job that cannot be claimed.

    Raises:
        UnknownJob: there is no job with that id.
    """
    state = require_job(tx, job_id)
    status = state.status
    if state.not_before_ms is not None:
        due = from_ms(state.not_before_ms)
        return IllegalTransition(
            f"job {job_id} is not due before {due:%Y-%m-%dT%H:%M:%SZ} and cannot be claimed",
            advice=f"see registry.get({job_id!r})",
            command=f"see 'jobdb show {job_id}'",
        )
    return IllegalTransition(
        f"job {job_id} is {status}, not pending, and cannot be claimed",
        advice=f"see registry.get({job_id!r})",
        command=f"see 'jobdb show {job_id}'",
    )


def require_claim(tx: Transaction, job_id: str, attempt: int | None, doing: str) -> JobState:
    """Return the state of a running job whose current claim is ``attempt``.

    Raises:
        UnknownJob: there is no job with that id.
        StaleAttempt: it has another claim or none, or no attempt is given.
    """
    state = require_job(tx, job_id)
    status = JobStatus(state.status)
    if attempt is None and status is JobStatus.RUNNING:
        held = state.lease_until_ms is not None
        raise attempt_required(doing, job_id, worker=state.worker, current=state.attempt, leased=held)
    if attempt != state.attempt or status is not JobStatus.RUNNING:
        raise stale_attempt(doing, job_id, attempt, status=status, current=state.attempt)
    return state
