"""The queue of jobs of which something was accepted: filled by the consumer's thread, emptied by the iterator's."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from ..system.interrupt_safe_flag import Flag


class ReadyJobs:
    """A queue of job ids, each at most once. Safe to share between threads."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._changed = Flag()
        self._closed = False

    def put(self, job_ids: Iterable[str]) -> None:
        """Add jobs and wake whoever waits for one."""
        added = dict.fromkeys(job_ids)
        if added:
            with self._lock:
                self._jobs.update(added)
                self._changed.set()

    def pop(self, timeout_sec: float) -> str | None:
        """Take the job that has waited longest; None when there is none within the time, in seconds, or ever again."""
        self._changed.wait(timeout_sec)
        with self._lock:
            job_id = self._jobs.popitem(last=False)[0] if self._jobs else None
            if not self._jobs and not self._closed:
                self._changed.clear()
        return job_id

    def close(self) -> None:
        """Make ``pop`` return at once from now on: no further job is added."""
        with self._lock:
            self._closed = True
            self._changed.set()
