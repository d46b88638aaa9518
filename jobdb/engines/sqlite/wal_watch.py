"""Waiting for writes to the WAL, with the kernel's inotify, so that an idle waiter costs no processor time.

Called by the read path while it waits for a change. Opens no database file: closing one would drop SQLite's locks.

A commit appends to the WAL before it becomes visible, so a write only says that a commit may follow within a moment:
the caller looks again and again for that moment, and now and then in any case. A user has 128 instances of inotify by
default, and other systems have none: whoever gets none polls. Source: inotify(7).
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

_IN_MODIFY = 0x2


class WalWatch:
    """The writes to one WAL, for one thread: another would take the news away. Released when it is deleted.

    Args:
        wal: the file, which exists.

    Raises:
        OSError: it cannot be watched.
    """

    def __init__(self, wal: Path) -> None:
        import ctypes  # imported late: most commands never wait

        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            raise OSError("this system has no inotify") from None
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(self._fd, os.fsencode(wal), _IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def forget(self) -> None:
        """Forget the writes so far; called before the look whose result they would announce."""
        with suppress(OSError):
            os.read(self._fd, 65536)

    def wait(self, timeout_sec: float) -> bool:
        """Wait for a write, or for ``timeout_sec``; return whether there was one."""
        return bool(self._poll.poll(max(0.0, timeout_sec) * 1000))

    def __del__(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)
