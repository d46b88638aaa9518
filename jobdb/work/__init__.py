"""Run jobs: the worker that claims them, keeps their processes, hears their events and ends them.

Used by ``jobdb work`` and by applications that run jobs in Python: ``Worker(registry, handler).run()``. Calls the
registry and what is below it.
"""

from __future__ import annotations

from ..registry.cancellation import WorkCancelled
from ..registry.working import RetryLater, Work
from .command_runner import CommandRunner
from .runner import RunnerUnusable
from .settings import WorkerSummary
from .worker import Worker

__all__ = ["CommandRunner", "RetryLater", "RunnerUnusable", "Work", "WorkCancelled", "Worker", "WorkerSummary"]
