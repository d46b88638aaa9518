"""The verbs of :class:`Registry` for workers: one batch for all slots, attempts, and who works where.

Called by ``jobdb.work`` and by commands, as methods of an open registry; they check their arguments and call the
engine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from .. import model
from ..core import arguments
from ..core.protocol import MAX_DETAIL_CHARS
from ..errors import InvalidInput
from ..system.descriptor_shortage import translate_shortage
from .base import RegistryBase
from .events import checked_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import (
        Attempt,
        AttemptKey,
        Claim,
        GiveBack,
        JobStatus,
        Reaped,
        WorkBatch,
        WorkerInfo,
        WorkerRecord,
        WorkResult,
    )
    from .working import Verbs, Working

MAX_SLOTS = 10_000


class WorkerVerbs(RegistryBase):
    """The verbs for workers."""

    @translate_shortage
    def work_batch(self, batch: WorkBatch) -> WorkResult:
        """Record what a worker reports and claim jobs for it, in one transaction.

        Events, returns and renewals are handled one by one: what is refused, because the claim is lost, stops nothing
        else.

        Args:
            batch: the worker's events, returns and renewals, and how many jobs it can take.

        Returns:
            The claims, and what was refused.

        Raises:
            InvalidInput: a field of the batch is invalid; nothing was written.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> result = registry.work_batch(WorkBatch(worker_id="w1", worker="host1:4711", claim=8))
            >>> [(claim.job_id, claim.attempt) for claim in result.claims]
            [('sort-1', 1)]
            >>> done = NewEvent(job_id="sort-1", event="completed", attempt=1)
            >>> registry.work_batch(WorkBatch(worker_id="w1", worker="host1:4711", events=(done,))).refused
            {}
        """
        return self.engine.work_batch(_checked_batch(batch))

    def claim_states(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, JobStatus | None]:
        """Return what became of claims.

        Args:
            keys: the claims, each as (job id, attempt).

        Returns:
            Per claim the job's status: RUNNING while the claim is held, the final status if the job ended at this
            attempt, None if the claim was taken over or released, or the job is gone.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> claim = registry.claim(worker="host1:4711")
            >>> job = registry.cancel("sort-1")
            >>> registry.claim_states([("sort-1", 1)])
            {('sort-1', 1): <JobStatus.CANCELLED: 'cancelled'>}
        """
        return self.engine.claim_states([_checked_key(key) for key in arguments.items("keys", keys, of="claims")])

    def add_worker(self, info: WorkerInfo) -> None:
        """Record a worker, so that others see it and its jobs are returned when it is known to be dead.

        Args:
            info: the worker.

        Example:
            >>> registry.add_worker(this_worker)
            >>> [record.info.name for record in registry.workers()]
            ['host1:4711']
        """
        self.engine.add_worker(_checked_worker(info))

    def remove_worker(self, worker_id: str) -> None:
        """Delete a worker's record; its attempts stay.

        Args:
            worker_id: its id.

        Example:
            >>> registry.add_worker(this_worker)
            >>> registry.remove_worker(this_worker.worker_id)
            >>> registry.workers()
            []
        """
        self.engine.remove_worker(arguments.text("worker_id", worker_id, most=64))

    def workers(self) -> list[WorkerRecord]:
        """Return the recorded workers, the longest running first.

        Example:
            >>> registry.workers()
            []
        """
        return self.engine.workers()

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts that workers made at a job, in order, with the paths of their logs.

        Attempts of callers of :meth:`claim` are not recorded.

        Args:
            job_id: the job's id.

        Raises:
            UnknownJob: there is no job with that id.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> registry.attempts("sort-1")
            []
        """
        return self.engine.attempts(arguments.job_id(job_id))

    def working(self, claim: Claim, *, lease_sec: float = 60.0) -> Working:
        """Return a context manager that keeps a claim alive while its block does the job, and ends the job with it.

        A thread renews the lease after a third of its length and notices within half a second that the claim is gone.
        The block gets a ``Work``: it asks ``work.cancelled`` from time to time, and publishes ``work.progress(…)``,
        which raises ``WorkCancelled`` if the work must stop. When the block ends, the job completes, with what
        ``work.set_result`` said. An exception ends the job as error, or gives it back if it has tries left
        (``max_attempts``); it is raised again. ``RetryLater`` gives the job back, and so does Ctrl-C. ``RetryLater``
        and ``WorkCancelled`` do not leave the block.

        Args:
            claim: the claim.
            lease_sec: the length of the lease from now on, in seconds.

        Raises:
            StaleAttempt: the claim is gone at the beginning; or at the end of a block that had not learned of it.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> claim = registry.claim(worker="host1:4711")
            >>> with registry.working(claim) as work:
            ...     work.progress("half of it", pct=50)
            >>> registry.get("sort-1").status
            <JobStatus.COMPLETED: 'completed'>
        """
        from .working import Working

        if not isinstance(claim, model.Claim):
            raise InvalidInput(f"a claim to work on must be a Claim, not {arguments.shown(claim)}")
        return Working(cast("Verbs", self), claim, arguments.seconds_as_ms("lease_sec", lease_sec) / 1000)

    @translate_shortage
    def return_jobs_of_dead_workers(self, info: WorkerInfo, *, dead: Sequence[str] = ()) -> list[Reaped]:
        """Return the jobs of this host's dead workers at once, without waiting for their leases.

        Those are the workers of an earlier boot of this host, and the given ones.

        Args:
            info: the worker that asks.
            dead: the ids of workers whose process is known to be gone.

        Returns:
            The returned jobs, each with a try used up, and those that ended because it was their last.

        Example:
            >>> registry.return_jobs_of_dead_workers(this_worker)
            []
        """
        ids = [arguments.text("a worker's id", one, most=64) for one in arguments.items("dead", dead, of="ids")]
        uptime_ms = round(time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) * 1000)
        return self.engine.return_jobs_of_dead_workers(_checked_worker(info), dead=ids, uptime_ms=uptime_ms)


def _checked_key(key: object) -> AttemptKey:
    if not isinstance(key, tuple) or len(key) != 2:
        raise InvalidInput(f"a claim must be (job id, attempt), not {arguments.shown(key)}")
    return arguments.job_id(key[0]), arguments.attempt(key[1])


def _checked_batch(batch: object) -> WorkBatch:
    if not isinstance(batch, model.WorkBatch):
        raise InvalidInput(f"a batch must be a WorkBatch, not {type(batch).__name__}")
    events = []
    for event in arguments.items("events", batch.events, of="NewEvent"):
        if not isinstance(event, model.NewEvent) or event.attempt is None:
            raise InvalidInput(f"a worker's event must be a NewEvent with an attempt, not {arguments.shown(event)}")
        events.append(checked_event(event.job_id, event.event, event.detail, event.data, event.attempt))
    return model.WorkBatch(
        worker_id=arguments.text("worker_id", batch.worker_id, most=64),
        events=tuple(events),
        give_back=tuple(_checked_return(back) for back in arguments.items("give_back", batch.give_back, of="returns")),
        renew=tuple(_checked_key(key) for key in arguments.items("renew", batch.renew, of="claims")),
        claim=arguments.integer("claim", batch.claim, least=0, most=MAX_SLOTS),
        worker=arguments.text("worker", batch.worker, most=256, least=1 if batch.claim else 0),
        agent=arguments.optional_text("agent", batch.agent, most=128),
        agent_session=arguments.optional_text("agent_session", batch.agent_session, most=256),
        lease_sec=arguments.seconds_as_ms("lease_sec", batch.lease_sec) / 1000,
        announce=arguments.flag("announce", batch.announce),
        log_dir=arguments.optional_text("log_dir", batch.log_dir, most=4096),
        heartbeat=arguments.flag("heartbeat", batch.heartbeat),
    )


def _checked_return(back: object) -> GiveBack:
    if not isinstance(back, model.GiveBack):
        raise InvalidInput(f"a return must be a GiveBack, not {type(back).__name__}")
    return model.GiveBack(
        job_id=arguments.job_id(back.job_id),
        attempt=arguments.attempt(back.attempt),
        reason=arguments.text("reason", back.reason, most=MAX_DETAIL_CHARS),
        delay_sec=arguments.seconds("delay_sec", back.delay_sec),
        counts=arguments.flag("counts", back.counts),
        limit=arguments.integer("limit", back.limit, least=1, most=10**6),
        data=arguments.mapping("data", back.data),
    )


def _checked_worker(info: object) -> WorkerInfo:
    if not isinstance(info, model.WorkerInfo):
        raise InvalidInput(f"a worker must be a WorkerInfo, not {type(info).__name__}")
    return model.WorkerInfo(
        worker_id=arguments.text("worker_id", info.worker_id, most=64),
        name=arguments.text("name", info.name, most=256),
        agent=arguments.optional_text("agent", info.agent, most=128),
        host=arguments.text("host", info.host, most=256),
        machine=arguments.text("machine", info.machine, most=64, least=0),
        boot_id=arguments.text("boot_id", info.boot_id, most=64, least=0),
        pid_namespace=arguments.text("pid_namespace", info.pid_namespace, most=64, least=0),
        pid=arguments.integer("pid", info.pid, least=0, most=2**31),
        pid_started=arguments.integer("pid_started", info.pid_started, least=0, most=2**53),
        slots=arguments.integer("slots", info.slots, least=1, most=MAX_SLOTS),
        log_dir=arguments.optional_text("log_dir", info.log_dir, most=4096),
        lease_sec=arguments.seconds_as_ms("lease_sec", info.lease_sec) / 1000,
    )
