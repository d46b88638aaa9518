"""The verbs of :class:`Registry` for claims: claim a job, renew or release the claim, reap jobs of dead workers.

Called by applications and by every command that claims or reaps, as methods of an open registry; they check their
arguments and call the engine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..core import arguments
from ..core.protocol import MAX_DETAIL_CHARS
from ..system.descriptor_shortage import translate_shortage
from .base import RegistryBase
from .waiting import WaitForChange, waits

if TYPE_CHECKING:
    from ..model import Claim, Job, Reaped
    from .waiting import Waiting

DEFAULT_LEASE_SEC = 300.0
DEFAULT_STRIKE_LIMIT = 3
_CLOCK_STEP_SEC = 0.001
_LONGEST_PAUSE_SEC = 1.0
"""The longest interval between looks while a due job cannot be claimed: only a process with the key can end it."""
_LONGEST_WAIT_SEC = 60.0
"""The interval between looks although nothing has changed: the clock that says when a job is due may be set ahead."""


class ClaimVerbs(RegistryBase):
    """The verbs for claims."""

    @waits
    def claim(
        self,
        *,
        worker: str,
        agent: str | None = None,
        agent_session: str | None = None,
        job_id: str | None = None,
        lease_sec: float | None = DEFAULT_LEASE_SEC,
        wait_sec: float = 0,
    ) -> Waiting[Claim | None]:
        """Claim the next ready job: highest priority first, then the oldest.

        A job is ready when it is pending and due. A job whose lease has expired is returned to the queue first, as
        ``reap`` does, so that work goes on without it.

        Args:
            worker: the name of the claiming worker, such as "host1:4711".
            agent: only jobs for this agent.
            agent_session: only jobs for this session.
            job_id: only this job.
            lease_sec: the number of seconds after which the claim expires unless renewed; None means never.
            wait_sec: how long to wait for a job if none is pending, in seconds.

        Returns:
            The claim; pass its ``attempt`` to every verb on the job. None if no job is ready.

        Raises:
            UnknownJob: there is no job with the id ``job_id``.
            IllegalTransition: the job with the id ``job_id`` is not pending, or not due.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> claim = registry.claim(agent="codex", worker="host1:4711", lease_sec=60)
            >>> claim.job_id, claim.attempt
            ('sort-1', 1)
            >>> registry.claim(agent="codex", worker="host2:4711") is None
            True
        """
        lease_ms = None if lease_sec is None else arguments.seconds_as_ms("lease_sec", lease_sec)
        worker = arguments.text("worker", worker, most=256)
        agent = arguments.optional_text("agent", agent, most=128)
        agent_session = arguments.optional_text("agent_session", agent_session, most=256)
        if job_id is not None:
            job_id = arguments.job_id(job_id)
        wait_sec = arguments.seconds("wait_sec", wait_sec)
        deadline, pause_sec = time.monotonic() + wait_sec, _CLOCK_STEP_SEC
        while True:
            seen = self.store.data_version() if wait_sec > 0 else 0
            claim = self.engine.claim(
                worker=worker, lease_ms=lease_ms, job_id=job_id, agent=agent, agent_session=agent_session
            )
            left = deadline - time.monotonic()
            if claim is not None or left <= 0:
                return claim
            ready_ms = self.engine.next_ready_ms()
            if ready_ms is not None:
                pause_sec = min(2 * pause_sec, _LONGEST_PAUSE_SEC) if ready_ms == 0 else _CLOCK_STEP_SEC
                left = min(left, ready_ms / 1000 + pause_sec)
            yield WaitForChange(seen, min(left, _LONGEST_WAIT_SEC))

    def renew(self, job_id: str, *, attempt: int | None = None, lease_sec: float = DEFAULT_LEASE_SEC) -> Claim:
        """Renew the lease of a claim.

        Args:
            job_id: the id of the claimed job.
            attempt: the attempt of the claim; refused if None, with an error that names the current one.
            lease_sec: the number of seconds from now after which the claim expires.

        Returns:
            The claim with its new lease.

        Raises:
            UnknownJob: there is no job with that id.
            StaleAttempt: the claim was taken over or released, or the job has ended.
            AttemptRequired: ``attempt`` is None.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort")
            >>> claim = registry.claim(worker="host1:4711", lease_sec=60)
            >>> renewed = registry.renew(claim.job_id, attempt=claim.attempt, lease_sec=600)
            >>> renewed.lease_expires_at > claim.lease_expires_at
            True
        """
        lease_ms = arguments.seconds_as_ms("lease_sec", lease_sec)
        return self.engine.renew(
            arguments.job_id(job_id),
            attempt=None if attempt is None else arguments.attempt(attempt),
            lease_ms=lease_ms,
        )

    def release(
        self, job_id: str, *, attempt: int | None = None, delay_sec: float = 0, reason: str | None = None
    ) -> Job:
        """Release a claimed job, which becomes pending again.

        Args:
            job_id: the id of the claimed job.
            attempt: the attempt of the claim; refused if None, with an error that names the current one.
            delay_sec: how long nobody may claim it, in seconds.
            reason: why, a sentence for people; stored as the job's detail.

        Returns:
            The job.

        Raises:
            UnknownJob: there is no job with that id.
            StaleAttempt: the claim was taken over or released, or the job has ended.
            AttemptRequired: ``attempt`` is None.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort")
            >>> claim = registry.claim(worker="host1:4711")
            >>> registry.release(claim.job_id, attempt=claim.attempt).status
            <JobStatus.PENDING: 'pending'>
        """
        return self.engine.release(
            arguments.job_id(job_id),
            attempt=None if attempt is None else arguments.attempt(attempt),
            delay_ms=round(arguments.seconds("delay_sec", delay_sec) * 1000),
            reason=arguments.optional_text("reason", reason, most=MAX_DETAIL_CHARS),
        )

    @translate_shortage
    def reap(self, *, strike_limit: int = DEFAULT_STRIKE_LIMIT, limit: int = 500) -> list[Reaped]:
        """Return the jobs of dead workers to pending, then end jobs that are past their time limits.

        Workers of :mod:`jobdb.work` call it; without one, call it periodically, from any process. A job whose lease
        expired becomes pending again; at its last try it ends as error. A job past its ``timeout_sec`` ends as error,
        and so does one past its ``idle_timeout_sec``, unless a live lease or an open question protects it. If its
        token is revoked, so that no event can be signed, it ends without an event, as a cancelled job does.

        Args:
            strike_limit: the number of expired leases after which a job without ``max_attempts`` ends.
            limit: the maximum number of expired leases, and of overdue jobs, to process in this transaction; 1 to
                10,000.

        Returns:
            The changed jobs.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> claim = registry.claim(worker="host1:4711", lease_sec=0.001)
            >>> time.sleep(0.01)
            >>> [(reaped.job_id, reaped.action) for reaped in registry.reap()]
            [('sort-1', 'returned')]
        """
        return self.engine.reap(
            strike_limit=arguments.integer("strike_limit", strike_limit, least=1, most=10**6),
            limit=arguments.page_limit(limit),
        )
