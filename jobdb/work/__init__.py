"""Run jobs: the worker that claims them, keeps their processes, hears their events and ends them.

Used by ``jobdb work`` and by applications that run jobs in Python: ``Worker(registry, handler).run()``. Calls the
registry and what is below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..registry.cancellation import WorkCancelled
    from ..registry.working import RetryLater, Work
    from .command_runner import CommandRunner
    from .runner import RunnerUnusable
    from .settings import WorkerSummary
    from .worker import Worker

__all__ = ["CommandRunner", "RetryLater", "RunnerUnusable", "Work", "WorkCancelled", "Worker", "WorkerSummary"]

_HOMES = {
    "CommandRunner": ".command_runner",
    "RetryLater": "..registry.working",
    "RunnerUnusable": ".runner",
    "Work": "..registry.working",
    "WorkCancelled": "..registry.cancellation",
    "Worker": ".worker",
    "WorkerSummary": ".settings",
}


def __getattr__(name: str) -> Any:
    # Imported when they are needed: commands that only read a log need no worker.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return value
