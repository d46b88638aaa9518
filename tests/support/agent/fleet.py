"""Workers (`jobdb work`) that a test kills, stops and starts again, and the processes below them.

Used by `tests.support.agent.chaos` and by tests of workers. While a `Fleet` is open, this process is a child subreaper:
what its workers leave behind falls to it instead of to init, and `left_processes` finds it whatever it has done to its
environment, session and file descriptors.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.agent.process_table import (
    Process,
    ProcessTable,
    children,
    descendants,
    process_table,
    processes_with_argument,
)
from tests.support.processes import module_environment, python_module

_PR_SET_CHILD_SUBREAPER = 36
HOSTILE = "tests.support.agent.hostile"


def jobdb_work(*options: object) -> list[str]:
    """Return the command that runs ``jobdb work`` with ``options``."""
    return [sys.executable, "-P", "-m", "jobdb.cli", "work", *map(str, options)]


WITHOUT_CGROUPS = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'grep -w cgroup2 /proc/self/mounts | while read -r _ at _; do umount -l "$at" || exit 1; done && exec "$@"',
    "sh",
)
"""Begins a command that runs in a mount namespace without cgroup v2, with the same process id; as root."""


def worker_environment(folder: Path, url: str, **variables: str) -> dict[str, str]:
    """Return the environment of workers on the database ``url``, whose locks and channels are below ``folder``."""
    return module_environment(JOBDB_URL=url, JOBDB_RUNTIME_DIR=str(folder / "run"), **variables)


class WorkerProcess:
    """One worker.

    Args:
        command: its command line.
        environment: its environment.
        folder: its current folder.
        output: a file to which its output is appended.

    Attributes:
        stopped: it was sent SIGSTOP, and not yet SIGCONT.
        ended: the exit codes of its processes so far; negative: the signal that ended one.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path) -> None:
        self._command = command
        self._environment = environment
        self._folder = folder
        self.output = output
        self.stopped = False
        self.ended: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        """Return whether its process runs; notice that it has ended."""
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        self.ended.append(self._process.returncode)
        self._process = None
        return False

    def start(self) -> None:
        with open(self.output, "ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self.stopped = number == signal.SIGSTOP or (self.stopped and number != signal.SIGCONT)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait(20)

    def wait(self, limit_sec: float) -> int:
        """Wait for its end; return the exit code of the process that ended last."""
        if self._process is not None:
            self._process.wait(limit_sec)
            self.stopped = False
            self.is_running()
        return self.ended[-1]


class Fleet:
    """Workers that run the hostile agent, each started again as often as a test wants.

    Args:
        folder: an empty folder: the agents' (with the journal), the logs and the workers' output are below it.
        environment: the workers' environment, with JOBDB_URL.
        options: what every worker is started with, before ``--``.
        workers: how many workers.
        work: the command that the options and the agent's command follow.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        options: Sequence[object],
        *,
        workers: int,
        work: Sequence[str] = (),
    ) -> None:
        self.agents = folder / "agents"
        self.agents.mkdir()
        command = [*(work or jobdb_work()), *map(str, options), "--", *python_module(HOSTILE, self.agents)]
        self.workers = [
            WorkerProcess(command, environment, self.agents, folder / f"worker-{number}.out")
            for number in range(workers)
        ]
        self._before: set[int] = set()

    def __enter__(self) -> Self:
        self._before = {process.pid for process in children(process_table(), os.getpid())}
        _set_subreaper(True)
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if worker.is_running():
                worker.kill()
        self.kill_left_processes()
        _set_subreaper(False)

    def running(self) -> list[WorkerProcess]:
        """Return the workers that run and are not stopped."""
        return [worker for worker in self.workers if worker.is_running() and not worker.stopped]

    def agent_processes(self, table: ProcessTable) -> list[Process]:
        """Return the processes of agents: those with this fleet's folder among their arguments."""
        return [process for process in processes_with_argument(table, str(self.agents)) if "--" not in process.command]

    def keepers(self, table: ProcessTable, worker: WorkerProcess) -> list[Process]:
        """Return the processes below a worker that have agents as children; the keeper server may be among them."""
        agents = {process.pid for process in self.agent_processes(table)}
        below = [process for process in descendants(table, [worker.pid]) if process.pid not in agents]
        return [process for process in below if any(child.pid in agents for child in children(table, process.pid))]

    def servers(self, table: ProcessTable, worker: WorkerProcess) -> list[Process]:
        """Return the processes between a worker and its keepers, of which there is one at most times."""
        not_servers = {process.pid for process in [*self.keepers(table, worker), *self.agent_processes(table)]}
        return [process for process in children(table, worker.pid) if process.pid not in not_servers]

    def left_processes(self) -> list[Process]:
        """Return the children of this process that it has neither started nor had before, and all below them."""
        self._reap()
        table = process_table()
        workers = {worker.pid for worker in self.workers if worker.is_running()}
        new = [process for process in children(table, os.getpid()) if process.pid not in self._before]
        below = descendants(table, [process.pid for process in new])
        return [process for process in [*new, *below] if process.pid not in workers]

    def kill_left_processes(self) -> None:
        """Kill what is left, so that a test that fails leaves nothing behind."""
        while left := self.left_processes():
            for process in left:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def _reap(self) -> None:
        """Reap the dead that have fallen to this process; the workers and what was there before have their own."""
        expected = {*self._before, *(worker.pid for worker in self.workers if worker.is_running())}
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) not in expected and _parent_of(name) == os.getpid():
                try:
                    os.waitpid(int(name), os.WNOHANG)
                except ChildProcessError:
                    continue


def _parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _set_subreaper(wanted: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
