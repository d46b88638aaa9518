"""The clock that also runs while the machine sleeps, and a timer on it, for leases that must end in time.

Used by the worker, which computes a job's deadline, and by its keeper, which ends the job then; imports only the
standard library, since the keeper does. ``time.monotonic`` stands still while a machine is suspended: after it, a lease
would seem to last as long as before. Source: clock_gettime(2), timerfd_create(2).
"""

from __future__ import annotations

import ctypes
import os
import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, getattr(os, "O_CLOEXEC", 0)
_TFD_TIMER_ABSTIME = 1
_POLL_SEC = 1.0
_MAX_SEC = 9e9


def boottime() -> float:
    """Return the seconds since the machine's start, including those in which it was suspended.

    Only differences mean something, and only in one boot. On systems without this clock, it is the monotonic clock.

    Example:
        >>> from jobdb.system.boot_clock import boottime
        >>> boottime() <= boottime()
        True
    """
    return time.clock_gettime(_CLOCK)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class _Timerfd:
    """The system's functions for timers, looked up once: a keeper, which is forked, is not to do it again."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self.create = libc.timerfd_create
        self.set = libc.timerfd_settime


def _find_timerfd() -> _Timerfd | None:
    try:
        return _Timerfd()
    except (AttributeError, OSError):
        return None


_timerfd = _find_timerfd()


class BootTimer:
    """A time on the boot clock that a ``poll`` can wait for.

    A timeout of ``poll`` counts monotonic time, and so does not end while the machine is suspended. Where the system
    has no timer for the boot clock, `longest_wait` limits each wait instead.
    """

    def __init__(self) -> None:
        self._fd = -1 if _timerfd is None else _timerfd.create(_CLOCK, _TFD_NONBLOCK | _TFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor that is readable from the set time on; -1 if the system has no such timer."""
        return self._fd

    def set(self, at: float) -> None:
        """Set the time, in seconds of `boottime`."""
        if _timerfd is not None and self._fd >= 0:
            # A time of zero would disarm the timer; one after centuries does not fit.
            nanoseconds = max(1, round(min(at, _MAX_SEC) * 1e9))
            value = _TimerSpec(_Timespec(0, 0), _Timespec(*divmod(nanoseconds, 1_000_000_000)))
            if _timerfd.set(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(value), None) != 0:
                self.close()

    def longest_wait(self, at: float) -> float | None:
        """Return the seconds after which to look at the clock again; None if the descriptor tells."""
        return None if self._fd >= 0 else max(0.0, min(_POLL_SEC, at - boottime()))

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
