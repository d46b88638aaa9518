"""Linux's futex with a time limit: a process sleeps until another one changes a word of shared memory.

Called by the shared page, for a writer that has to wait. Calls the kernel only; touches no file.

Prior art: the wait queues of trio's parking lot and of every futex-based mutex. Correctness never depends on a wake-up:
waiters check again after their time limit, since a process can die before it wakes anybody.

Only code that has to wait imports this module, because ``ctypes`` takes milliseconds to load.
Rejected: polling a lock, which costs its holder the processor; a blocking ``flock``, which has no time limit.
Source: https://man7.org/linux/man-pages/man2/futex.2.html
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
import time
from functools import partial
from random import uniform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap

_SYSTEM_CALL = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
_WAIT, _WAKE = 0, 1
_EXPECTED_ERRORS = (errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR)
_SHORTEST_SLEEP_SEC = 20e-6
_MAX_SLEEP_SEC = 50e-6


class _Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_int64)]


def _futex() -> Any:
    """Return the system call; None on machines for which its number is not known."""
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None or sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = (
        ctypes.c_long,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_uint32,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_uint32,
    )
    return partial(call, number)


def _short_sleep() -> None:
    time.sleep(uniform(_SHORTEST_SLEEP_SEC, _MAX_SLEEP_SEC))


class FutexWord:
    """A 32-bit word of shared memory on which processes sleep.

    Args:
        memory: the shared mapping of a file.
        offset: the word's offset in it, in bytes, a multiple of 4.
    """

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._word = ctypes.c_uint32.from_buffer(memory, offset)
        self._address = ctypes.addressof(self._word)
        self._limit = _Timespec()
        self._limit_address = ctypes.addressof(self._limit)
        self._call = _futex()

    def wait(self, expected: int, timeout_sec: float) -> None:
        """Sleep while the word is ``expected``, until woken or for ``timeout_sec``; wake-ups may be spurious."""
        if self._call is None:
            _short_sleep()
            return
        # Threads share this structure; any of their time limits is short enough.
        nanoseconds = max(int(timeout_sec * 1e9), 1)
        self._limit.sec, self._limit.nsec = divmod(nanoseconds, 1_000_000_000)
        failed = self._call(self._address, _WAIT, expected, self._limit_address, None, 0) < 0
        if failed and ctypes.get_errno() not in _EXPECTED_ERRORS:
            _short_sleep()  # the system refuses the call: poll rather than spin

    def wake(self, max_waiters: int) -> int:
        """Wake up to ``max_waiters`` waiters, the longest waiting first; return how many were woken."""
        return 0 if self._call is None else max(self._call(self._address, _WAKE, max_waiters, None, None, 0), 0)
