"""The reaping that a worker does beside its work: no cron is needed to return the jobs of dead workers.

Used by the dispatcher, in its thread. Calls the registry's verbs. One worker of all that share a registry reaps at a
time: it holds the lease "reap". The jobs of this host's dead workers are returned by every worker at its start, and by
the one that reaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .host import dead_workers
from .transitions import Reaped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .. import model
    from ..registry import Registry
    from .settings import WorkerSettings

LEASE_NAME = "reap"
LEAST_PERIOD_SEC, MOST_PERIOD_SEC = 1.0, 10.0
_MOST_PASSES = 10


class Reaper:
    """Reaps periodically.

    Args:
        registry: the registry.
        info: the worker.
        settings: the worker's settings.

    Attributes:
        due_at: when to reap next, by the dispatcher's clock.
    """

    def __init__(self, registry: Registry, info: model.WorkerInfo, settings: WorkerSettings) -> None:
        self._registry = registry
        self._info = info
        self._period_sec = min(MOST_PERIOD_SEC, max(LEAST_PERIOD_SEC, settings.lease_sec / 3))
        self._is_first = True
        self.due_at = float("-inf")

    def reap(self, now: float) -> list[Reaped]:
        """Return and end what is overdue, if this worker is the one that reaps; return what was changed."""
        self.due_at = now + self._period_sec
        found: list[model.Reaped] = []
        if self._is_first:
            found += self._return_jobs_of_the_dead()
            self._is_first = False
        lease_ms = round(self._period_sec * 3000)
        if self._registry.engine.acquire_lease(LEASE_NAME, holder=self._info.worker_id, lease_ms=lease_ms):
            found += self._return_jobs_of_the_dead()
            for _ in range(_MOST_PASSES):
                reaped = self._registry.reap()
                found += reaped
                if not reaped:
                    break
        return list(_transitions(found))

    def close(self) -> None:
        """Release the lease, if it is held, so that another worker reaps without waiting for its end."""
        self._registry.engine.release_lease(LEASE_NAME, holder=self._info.worker_id)

    def _return_jobs_of_the_dead(self) -> list[model.Reaped]:
        dead = dead_workers(self._registry.workers(), self._info)
        return self._registry.return_jobs_of_dead_workers(self._info, dead=dead)


def _transitions(found: Iterable[model.Reaped]) -> Iterable[Reaped]:
    for reaped in found:
        yield Reaped(job_id=reaped.job_id, action=reaped.action, reason=reaped.reason)
