"""The claims of a worker that it does not know of: the server had made them, and its answer was lost.

Used by the dispatcher, in its thread. Calls the registry's verbs. Without this they would be held until their lease
ends, and use up a try of jobs that have never run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import GiveBack, WorkBatch

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..registry import Registry
    from .slots import Key

_REASON = "the answer to its claim was lost; it has not been started"


class Strays:
    """Gives such claims back.

    Args:
        registry: the registry.
        worker_id: the worker's id.
    """

    def __init__(self, registry: Registry, worker_id: str) -> None:
        self._registry = registry
        self._worker_id = worker_id
        self._is_suspected = False

    def suspect(self) -> None:
        """Note that an answer was lost."""
        self._is_suspected = True

    def give_back(self, known: Collection[Key]) -> None:
        """Give back what the worker holds and does not know of, if an answer was lost.

        Args:
            known: the attempts that it knows of.
        """
        if not self._is_suspected:
            return
        held = [record.running for record in self._registry.workers() if record.info.worker_id == self._worker_id]
        returns = tuple(
            GiveBack(job_id=job_id, attempt=attempt, reason=_REASON)
            for running in held
            for job_id, attempt in running
            if (job_id, attempt) not in known
        )
        if returns:
            self._registry.work_batch(WorkBatch(worker_id=self._worker_id, give_back=returns))
        self._is_suspected = False
