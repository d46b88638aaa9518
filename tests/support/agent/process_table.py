"""Find the processes of agents on this machine, through /proc: by the mark in their environment, or by their arguments.

Called by tests, and by the hostile agents themselves; only the standard library, and little of it: it is imported in
every process of those agents.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MARK_VARIABLE = "JOBDB_PROCESS_MARK"
MARK_OPTION = "--mark"
"""An agent that clears its environment passes its mark in its arguments, so that it is found all the same."""


class Mark(NamedTuple):
    """The mark in the environment of an attempt's processes."""

    registry_id: str
    job_id: str
    attempt: int

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """Return the mark that ``text`` is, or None."""
        registry_id, _, rest = text.partition(":")
        job_id, _, attempt = rest.rpartition(":")
        return cls(registry_id, job_id, int(attempt)) if job_id and attempt.isdecimal() else None


class Process(NamedTuple):
    """A process that is alive: neither a zombie nor dead.

    Attributes:
        started: its start in clock ticks since boot: with the pid, it names the process for good.
        state: the kernel's letter for its state, such as "T" for a stopped one.
        command: its arguments.
        mark: the attempt that it belongs to, if it says so.
    """

    pid: int
    parent: int
    started: int
    state: str
    command: tuple[str, ...]
    mark: Mark | None

    def __str__(self) -> str:
        return f"{self.pid} {self.state} ({' '.join(self.command)[-120:]}) {self.mark or 'without a mark'}"


ProcessTable = Mapping[int, Process]


def read_process(pid: int) -> Process | None:
    """Return a process, or None if it is dead, a zombie, or another user's."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().decode("utf-8", "replace").split("\0")
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(
        pid, int(fields[1]), int(fields[19]), fields[0].decode(), tuple(command[:-1]), _mark(environment, command)
    )


def _mark(environment: bytes, command: list[str]) -> Mark | None:
    for entry in environment.split(b"\0"):
        if entry.startswith(MARK_VARIABLE.encode() + b"="):
            return Mark.parse(entry.partition(b"=")[2].decode("utf-8", "replace"))
    if MARK_OPTION in command[:-1]:
        return Mark.parse(command[command.index(MARK_OPTION) + 1])
    return None


def process_table() -> ProcessTable:
    """Return the processes of this user that are alive, by pid."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def agent_processes(table: ProcessTable, registry_id: str, job_id: str | None = None) -> list[Process]:
    """Return the processes of a registry's attempts, or of one job's."""
    return [
        process
        for process in table.values()
        if process.mark is not None
        and process.mark.registry_id == registry_id
        and job_id in (None, process.mark.job_id)
    ]


def processes_with_argument(table: ProcessTable, argument: str) -> list[Process]:
    """Return the processes that have ``argument`` among their arguments."""
    return [process for process in table.values() if argument in process.command]


def children(table: ProcessTable, pid: int) -> list[Process]:
    return [process for process in table.values() if process.parent == pid]


def descendants(table: ProcessTable, pids: Iterable[int]) -> list[Process]:
    """Return all processes below the given ones, parents before children."""
    found: list[Process] = []
    for pid in pids:
        found += children(table, pid)
    for process in found:  # grows while it is read
        found += children(table, process.pid)
    return found
