"""The processes of an attempt: all descendants of the keeper.

Used by ``attempt.py``; imports only the standard library. The keeper is a subreaper, so that a process of the attempt
whose parent ends becomes its child, and it has no child exactly when no process of the attempt is alive.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from . import frames
from .process_tree import (
    HAS_PROC,
    children_of,
    reap,
    send_signal,
    stop_and_kill,
    with_descendants,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .cgroup import AttemptGroup
    from .keeper_io import KeeperIO
    from .process_tree import Process, Processes

_FIRST_WAIT_SEC, _LONGEST_WAIT_SEC = 0.001, 1.0
_REPORT_SEC = 3.0
"""After how long the worker is told of a process that does not die, such as one that waits for a dead disk."""


class AgentTree:
    """All descendants of this process.

    Args:
        io: what this process waits with.

    Attributes:
        group: the control group of the attempt; None if it has none.
        has_children: whether a child was left when `reap` last looked.
        status: the wait status of the watched program; None while it runs.
    """

    def __init__(self, io: KeeperIO) -> None:
        self.group: AttemptGroup | None = None
        self.has_children = False
        self.status: int | None = None
        self._io = io
        self._main = 0

    def watch(self, pid: int) -> None:
        """Remember the exit status of this child when it is reaped."""
        self._main, self.status, self.has_children = pid, None, True

    def reap(self) -> None:
        """Reap all processes that have ended and are this process's children."""
        ended, self.has_children = reap()
        if self._main in ended:
            self.status = ended[self._main]

    def terminate(self) -> None:
        """Send SIGTERM to all, and continue those that are stopped, so that they receive it."""
        if not HAS_PROC:
            self._signal_main_group(signal.SIGTERM)
        with suppress(OSError):  # the system is short of descriptors: they are killed after the grace
            processes = self._find()
            for number in (signal.SIGTERM, signal.SIGCONT):
                for process in processes.values():
                    send_signal(process, number)

    def kill(self) -> int:
        """Kill all, wait until none is left, and return how many there were.

        A process that cannot be killed now, such as one that waits for a dead disk, is waited for, at less and less
        frequent looks; the worker is told of it.
        """
        killed: set[int] = set()
        told: set[int] = set()
        begun = now = time.monotonic()
        pause, next_at = _FIRST_WAIT_SEC, now
        while True:
            self.reap()
            if not self.has_children:
                return len(killed)
            now = time.monotonic()
            if now >= next_at:
                found = self._kill_once()
                pause = min(pause * 2, _LONGEST_WAIT_SEC) if found <= killed else _FIRST_WAIT_SEC
                killed |= found
                if now - begun > _REPORT_SEC:
                    for pid in found - told:
                        self._io.send(frames.BLOCKED, pid)
                    told |= found
                next_at = now + pause
            self._io.wait(next_at)

    def _kill_once(self) -> set[int]:
        """Kill what is found at one look; return the process ids."""
        if not HAS_PROC:
            self._signal_main_group(signal.SIGKILL)
            return {self._main}
        found: set[int] = set()
        with suppress(OSError):  # the system is short of descriptors: look again later
            if self.group is not None:
                found |= self.group.members()
                self.group.kill()
            found |= stop_and_kill(self._find, groups=True).keys()
        return found

    def _find(self, visit: Callable[[Process], object] | None = None) -> Processes:
        return with_descendants(children_of(os.getpid()), visit=visit)

    def _signal_main_group(self, number: int) -> None:
        with suppress(OSError):
            if self._main:
                os.killpg(self._main, number)
