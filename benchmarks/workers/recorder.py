"""Record which job's handler started when, and the CPU time at the two ends of the measured part.

Called by tasks.py; a peer's handler calls started() from any thread. The rate is taken between the starts of two
handlers: a slot starts its next job when it is done with the one before, ends recorded, so the rate of starts is that
of whole jobs, and neither connecting nor shutting down is measured.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """The time in monotonic ns, and the CPU seconds used so far by the worker and by the database's server."""

    at_ns: int
    worker_cpu_sec: float
    server_cpu_sec: float


class Recorder:
    """Counts the starts of ``jobs`` handlers; finished is set when the last one has started.

    Args:
        jobs: how many starts to wait for.
        measured_from: the number of the start at which the measured part begins, 0 for the first.
        mark: reads the clocks.
    """

    def __init__(self, jobs: int, measured_from: int, mark: Callable[[int], Mark]) -> None:
        self.starts: list[tuple[int, int]] = []
        self.marks: list[Mark] = []
        self.finished = threading.Event()
        self._ends = (measured_from, jobs - 1)
        self._position = itertools.count()
        self._mark = mark

    def started(self, number: int, at_ns: int | None = None) -> None:
        """Record that the handler of job ``number`` has started, now or at a monotonic time in ns."""
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        self.starts.append((number, at_ns))
        position = next(self._position)
        if position in self._ends:
            self.marks.append(self._mark(at_ns))
            if position == self._ends[1]:
                self.finished.set()
