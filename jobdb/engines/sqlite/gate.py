"""The gate: an advisory lock beside the database behind which writers queue.

SQLite's own write lock is polled by its busy handler; a process that has just released it is the likeliest to get it
again, and the others starve. Writers that take the gate first find SQLite's lock free. The gate is advice only: a
program that does not know it (the sqlite3 shell) is still kept out by SQLite.

``LOCK_NB`` with short random sleeps rather than a blocking ``flock``: only so can the wait have a limit.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import StorageFailed
from .locks import busy_error

if TYPE_CHECKING:
    from pathlib import Path

_SHORTEST_SLEEP_SEC = 20e-6
_LONGEST_SLEEP_SEC = 50e-6


def gate_path(database: Path) -> Path:
    """The gate file of a database."""
    return database.with_name(database.name + "-gate")


class Gate:
    """One open gate file. Not for use by two threads at once: the connection's mutex sees to that."""

    def __init__(self, database: Path) -> None:
        self._database = database
        try:
            self._fd = os.open(gate_path(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageFailed(
                f"cannot open {gate_path(database)}: {error.strerror}; check its owner and mode, and the disk"
            ) from error

    def enter(self, started: float, limit_sec: float) -> None:
        """Waits its turn.

        Args:
            started: when the caller began to wait, by ``time.monotonic()``.
            limit_sec: how long it may wait in all, in seconds.

        Raises:
            Busy: the limit is over.
            StorageFailed: the file system refuses the lock.
        """
        lock = fcntl.LOCK_EX | fcntl.LOCK_NB
        while True:
            try:
                fcntl.flock(self._fd, lock)
                return
            except BlockingIOError:
                waited = time.monotonic() - started
                if waited > limit_sec:
                    raise busy_error(self._database, waited) from None
                time.sleep(jitter(_SHORTEST_SLEEP_SEC, _LONGEST_SLEEP_SEC))
            except OSError as error:
                raise StorageFailed(
                    f"cannot lock {gate_path(self._database)}: {error.strerror}; nothing was written. Check the disk"
                ) from error

    def leave(self) -> None:
        """Lets the next writer in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @property
    def marked(self) -> bool:
        """Whether a sync of the WAL failed in some process, and nobody has written the WAL again since.

        The mark is the file's size. It need not survive a power failure: what the WAL holds then is on the disk.
        """
        try:
            return os.fstat(self._fd).st_size > 0
        except OSError:
            return True

    def mark(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._fd, 1)

    def clear(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def jitter(shortest: float, longest: float) -> float:
    """A random time between two, in seconds. Only who has to wait imports ``random``."""
    from random import uniform

    return uniform(shortest, longest)
