"""A flag to wait for that no exception or signal handler can leave in an inconsistent state.

Prior art: ``threading.Event``. It enters its lock in Python code: a Ctrl-C between two of its steps leaves the lock
    held, and
whoever sets the event or waits next blocks forever; so does a signal handler that sets an event for which its own
thread is just beginning to wait. Here each step is one call into C.
"""

from __future__ import annotations

import _thread
import time
from contextlib import suppress

_RECHECK_SEC = 0.25
"""A waiter that is cut off after its wake-up wakes nobody else, so waiters check again after this time."""


class Flag:
    """A flag that threads wait for. Used like ``threading.Event``, from signal handlers too."""

    __slots__ = ("_set", "_wakeup")

    def __init__(self) -> None:
        self._set = False
        self._wakeup = _thread.allocate_lock()  # locked while the flag is not set
        self._wakeup.acquire()

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._set

    def set(self) -> None:
        """Set it and wake all who wait."""
        self._set = True
        self._wake()

    def clear(self) -> None:
        """Reset it."""
        self._set = False
        self._wakeup.acquire(False)

    def wait(self, timeout_sec: float) -> bool:
        """Wait until it is set, or for ``timeout_sec``; return whether it is set."""
        deadline = time.monotonic() + timeout_sec
        while not self._set:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if self._wakeup.acquire(timeout=min(left, _RECHECK_SEC)) and self._set:
                self._wake()
        return self._set

    def _wake(self) -> None:
        if self._wakeup.locked():
            with suppress(RuntimeError):  # another thread has just done it
                self._wakeup.release()
