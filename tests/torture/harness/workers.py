"""Processes that run a function until they are killed.

They are forked from a small server process that holds no connection, so that a start costs milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self


def context() -> ForkServerContext:
    """The start method of all workers, with the slow imports done once.

    The fork server imports before it takes over our sys.path, so that the harness has to be on its PYTHONPATH.
    """
    found = multiprocessing.get_context("forkserver")
    here = str(Path(__file__).resolve().parent.parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, paths)])
    found.set_forkserver_preload(["apsw", "harness.plain", "harness.mixed"])
    return found


class WorkerPool:
    """Some workers; whatever happens, none of them outlives the ``with`` block."""

    def __init__(self) -> None:
        self.processes: list[BaseProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        worker = context().Process(target=target, args=arguments, daemon=True)
        worker.start()
        self.processes.append(worker)
        return worker

    def kill(self) -> int:
        """SIGKILL to all; returns how many were still running."""
        running = 0
        for worker in self.processes:
            running += worker.is_alive()
            worker.kill()
        for worker in self.processes:
            worker.join(20)
            if worker.exitcode is None:
                raise TimeoutError(f"process {worker.pid} did not die within 20 s of SIGKILL")
            worker.close()
        self.processes.clear()
        return running

    def join(self, timeout_sec: float) -> list[int | None]:
        """Wait until all have ended by themselves; returns their exit codes, None for those still running."""
        for worker in self.processes:
            worker.join(timeout_sec)
        return [worker.exitcode for worker in self.processes]
