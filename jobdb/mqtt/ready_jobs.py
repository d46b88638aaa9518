"""The queue of jobs with newly accepted events, from the consumer's thread to the iterator's.

Used by the consumer; holds ids of jobs only, no events, and never touches a database.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from ..system.interrupt_safe_flag import Flag


class ReadyJobs:
    """A thread-safe queue of job ids, each at most once."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._changed = Flag()
        self._closed = False

    def put(self, job_ids: Iterable[str]) -> None:
        """Add jobs and wake the threads that wait for one."""
        added = dict.fromkeys(job_ids)
        if added:
            with self._lock:
                self._jobs.update(added)
                self._changed.set()

    def pop(self, timeout_sec: float) -> str | None:
        """Remove and return the first job; None after ``timeout_sec`` seconds without one, or once closed and empty."""
        self._changed.wait(timeout_sec)
        with self._lock:
            job_id = self._jobs.popitem(last=False)[0] if self._jobs else None
            if not self._jobs and not self._closed:
                self._changed.clear()
        return job_id

    def close(self) -> None:
        """Make ``pop`` return immediately from now on, because no further job will be added."""
        with self._lock:
            self._closed = True
            self._changed.set()
