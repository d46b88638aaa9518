"""A flag for threads to wait on, which no exception or signal handler can leave in an inconsistent state.

Used by the relay, the consumer and connections to brokers, and by PostgreSQL's listener; imports nothing from jobdb.
Prior art: ``threading.Event``. It acquires its lock in Python code: a Ctrl-C between two of its steps leaves the lock
held, and the next thread that sets the event or waits for it blocks forever; so does a signal handler that sets an
event for which its own thread is just beginning to wait. Here each step is one call into C.
"""

from __future__ import annotations

import _thread
import time
from contextlib import suppress

_RECHECK_SEC = 0.25
"""A waiter that is interrupted after its wake-up wakes nobody else, so waiters check again after this time."""


class Flag:
    """A flag that threads wait for. It is used like ``threading.Event``, also from signal handlers."""

    __slots__ = ("_set", "_wakeup")

    def __init__(self) -> None:
        self._set = False
        self._wakeup = _thread.allocate_lock()  # locked while the flag is not set
        self._wakeup.acquire()

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return self._set

    def set(self) -> None:
        """Set the flag and wake all waiters."""
        self._set = True
        self._wake()

    def clear(self) -> None:
        """Reset the flag."""
        self._set = False
        self._wakeup.acquire(False)

    def wait(self, timeout_sec: float) -> bool:
        """Wait until the flag is set, or for ``timeout_sec``; return whether it is set."""
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
