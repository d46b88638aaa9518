"""CPU seconds of this process, of others, and of a server. Called by tasks.py, commands.py and the peers."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def own_cpu_sec() -> float:
    """Return the CPU seconds of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def cpu_sec_of(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes and their ended children (proc(5)); 0 for one that is gone."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            own, children = sum(int(one) for one in fields[11:13]), sum(int(one) for one in fields[13:15])
            total += children / _TICK + (_exact_sec(pid) or own / _TICK)
    return total


def _exact_sec(pid: int) -> float:
    """Return the CPU seconds of a process's threads in the scheduler's nanoseconds; 0 if it does not keep them."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text("ascii").split()[0])
    return total / 1e9


def with_children(pid: int) -> list[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(int(child) for child in children.read_text("ascii").split())]
