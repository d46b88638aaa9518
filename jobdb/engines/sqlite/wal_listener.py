"""Notifications of commits by others: the kernel tells when somebody writes to the WAL (inotify); nobody has to poll.

Started by the read path for a wait that lasts. Has a thread of its own, which knows nothing of SQLite: it reads the
notifications and sets the flags of those who wait.

Every commit begins with a write to the WAL, and becomes visible a moment later, when the index in shared memory has
been updated. So a notification is no news itself: whoever gets one polls for a while. Those who wait also look again
now and then without one. Where there is no inotify, or the user has no instance left, they poll all the time.
Prior art: litestream polls the WAL once a second; here a worker is to start a job within milliseconds, and to cost
nothing while there is none. Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import select
import threading
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...system.interrupt_safe_flag import Flag

ACTIVE_SEC = 0.25
"""How long after a notification those who wait poll: a slow disk may sync that long before the index changes."""
_REST_SEC = 0.02
_IN_MODIFY = 0x2
_BUFFER_BYTES = 65_536


class WalListener:
    """Sets flags when a WAL was written to.

    Args:
        wal: the path of the WAL, which exists.

    Attributes:
        active_until: until when those who wait are to poll, by ``time.monotonic``.

    Raises:
        OSError: the system has no inotify, or no instance is left.
    """

    def __init__(self, wal: str) -> None:
        self._pid = os.getpid()
        self._waiters: deque[Flag] = deque()
        self.active_until = 0.0
        self._inotify = _watch(wal)
        try:
            self._stop_reader, self._stop_writer = os.pipe()
        except BaseException:
            os.close(self._inotify)
            raise
        self._thread = threading.Thread(target=self._run, name="jobdb-wal-listener", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            for fd in (self._inotify, self._stop_reader, self._stop_writer):
                os.close(fd)
            raise

    @property
    def is_alive(self) -> bool:
        """True while it gives notifications."""
        return self._thread.is_alive()

    def add(self, waiter: Flag) -> None:
        """Set a flag at the next notification."""
        self._waiters.append(waiter)

    def remove(self, waiter: Flag) -> None:
        """Set a flag no more."""
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def close(self) -> None:
        """End the thread and give its descriptors back. Idempotent; does nothing in a forked child."""
        if os.getpid() != self._pid or self._stop_writer < 0:
            return
        os.write(self._stop_writer, b"x")  # closing it is not enough: a forked child may have it open, too
        writer, self._stop_writer = self._stop_writer, -1
        os.close(writer)
        self._thread.join(5)

    def _run(self) -> None:
        try:
            while self._stop_reader not in self._ready(None):
                os.read(self._inotify, _BUFFER_BYTES)
                self.active_until = monotonic() + ACTIVE_SEC
                self._notify()
                # They poll now. Where others commit all the time, this thread is not to wake up for each commit.
                if self._stop_reader in self._ready(_REST_SEC, only_stop=True):
                    return
        except OSError:
            pass  # those who wait poll again
        finally:
            os.close(self._inotify)
            os.close(self._stop_reader)
            self._notify()

    def _ready(self, timeout_sec: float | None, *, only_stop: bool = False) -> set[int]:
        poll = select.poll()
        poll.register(self._stop_reader, select.POLLIN)
        if not only_stop:
            poll.register(self._inotify, select.POLLIN)
        return {fd for fd, _events in poll.poll(None if timeout_sec is None else timeout_sec * 1000)}

    def _notify(self) -> None:
        for waiter in list(self._waiters):
            waiter.set()


def _watch(path: str) -> int:
    """Return an inotify descriptor for the writes to a file."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except AttributeError:
        raise OSError("this system has no inotify") from None
    if fd < 0:
        raise OSError(ctypes.get_errno(), "no inotify instance is left")
    if libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
        error = ctypes.get_errno()
        os.close(fd)
        raise OSError(error, os.strerror(error), path)
    return fd
