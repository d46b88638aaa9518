"""Child processes: Python modules as programs, programs that answer lines, and pools of workers that a test may kill.

Programs of the tests are started as modules (``-m tests.support.…``), never by path: started by path, Python would put
the program's folder first in its import path, and that folder's modules would hide others of the same name.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from tests.support.paths import ROOT

_PRELOADED = ["apsw", "tests.support.plain_sqlite", "tests.support.crash.random_worker"]


def python_module(name: str, *arguments: object) -> list[str]:
    """Return the command that runs a module; start it with `module_environment`, in any current folder."""
    return [sys.executable, "-P", "-m", name, *map(str, arguments)]


def module_environment(**variables: str) -> dict[str, str]:
    """Return a copy of the environment in which Python finds the package ``tests``, with ``variables`` set."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


@contextmanager
def _python_path() -> Iterator[None]:
    """Set PYTHONPATH for processes started in the block, and restore it."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = module_environment()["PYTHONPATH"]
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def forkserver_context() -> ForkServerContext:
    """Return the start method of all workers: forks of one small process with the slow imports preloaded.

    That process holds no connection, and a start costs milliseconds. It imports before it takes over this process's
    ``sys.path`` (Python 3.11), so that it needs PYTHONPATH; and its children have its environment, not the test's.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _python_path():
        forkserver.ensure_running()
    return context


class WorkerPool:
    """Processes that run a function until they are killed; none of them outlives the ``with`` block."""

    def __init__(self) -> None:
        self.processes: list[BaseProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        """Start a process that calls ``target(*arguments)``."""
        worker = forkserver_context().Process(target=target, args=arguments, daemon=True)
        worker.start()
        self.processes.append(worker)
        return worker

    def kill(self) -> int:
        """Send SIGKILL to all; return how many were still running."""
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
        """Wait until all have ended by themselves; return their exit codes, None for those still running."""
        for worker in self.processes:
            worker.join(timeout_sec)
        return [worker.exitcode for worker in self.processes]


class LineProcess:
    """A program that reads lines and answers with lines. Every wait has a limit.

    Args:
        command: the program and its arguments.
        env: its environment; this process's own when None.
        stderr: where its errors go, as for Popen.

    Attributes:
        process: the program.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, stderr: Any = None) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env, bufsize=0
        )
        self._unread = b""

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def read_line(self, timeout_sec: float = 60.0) -> str:
        """Return the next line, without its end.

        Raises:
            TimeoutError: none came in time.
            EOFError: the program has closed its output.
        """
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_sec
        while b"\n" not in self._unread:
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no line from {self.process.args!r} within {timeout_sec} s")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise EOFError(f"{self.process.args!r} ended: exit code {self.process.wait(10)}; {self._unread!r}")
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()

    def ask(self, line: str, timeout_sec: float = 60.0) -> str:
        """Send a line and return the next line."""
        self.send(line)
        return self.read_line(timeout_sec)

    def close(self, timeout_sec: float = 30.0) -> int:
        """Close the program's input and wait for its end; kill it when the time is over. Return its exit code."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout_sec)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout_sec)
        self.process.stdout.close()
        return self.process.returncode
