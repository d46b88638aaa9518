"""The verbs for claims: claim, renew, release, and reap, which returns or ends jobs that have run out of time.

Called by the registry's ``claims.py``, through the engine. Calls the store, never a driver.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ... import model
from ...errors import IllegalTransition
from ...model import JobStatus
from ..verbs import verb
from .lookups import require_job
from .publish_batch import stale_attempt
from .statements import CLAIMS, JOBS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ...model import Claim, Job, Reaped
    from ..store import Transaction
    from .lookups import JobState


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
        """Claim the first pending job in the queue, or the named one, for a worker; return None if none is pending."""
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
        """Extend the lease of a current claim, counted from now."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            job = _require_claim(tx, job_id, attempt, "renew").job
            tx.run(CLAIMS.renew_lease, job=job, lease_until=tx.now_ms + lease_ms, now=tx.now_ms)
            load_job = _job_loader(tx, job)
        return _claim_from_job(load_job)

    @verb
    def release(self, job_id: str, *, attempt: int) -> Job:
        """Release a claimed job: it is pending again and returns to its place in the queue."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            job = _require_claim(tx, job_id, attempt, "release").job
            tx.run(CLAIMS.release_job, job=job, now=tx.now_ms)
            load_job = _job_loader(tx, job)
        return load_job()

    @verb
    def reap(self, *, strike_limit: int, limit: int) -> list[Reaped]:
        """Return jobs whose lease has expired to pending, up to a number of strikes; end jobs past their time limits.

        A lease that ends later than it can was granted while a clock was ahead: it counts as expired. If a job began
        later than now, its time limits count from now.
        """
        from .reaping import reap

        with self.store.write() as tx:
            return reap(tx, self.vault, strike_limit=strike_limit, limit=limit)


def _job_loader(tx: Transaction, job: int) -> Callable[[], Job]:
    """Read a job's record; return a function that builds the object after the lock has been released."""
    from .job_rows import job_from_row  # before the commit: an import needs a file descriptor, and none may be left

    row = tx.one(JOBS.get_job_by_number, job=job)
    assert row is not None
    return partial(job_from_row, row)


def _claim_from_job(load_job: Callable[[], Job]) -> Claim:
    job = load_job()
    return model.Claim(job, job.attempt, job.worker or "", job.lease_expires_at)


def _refuse_claim(tx: Transaction, job_id: str) -> NoReturn:
    """Raise the error for a job that is missing or cannot be claimed."""
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
