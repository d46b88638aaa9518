"""The gate: an advisory lock beside the database behind which writers queue.

SQLite's own write lock is polled by its busy handler; a process that has just released it is the likeliest to get it
again, and the others starve. Writers that take the gate first find SQLite's lock free. The gate is advice only: a
program that does not know it (the sqlite3 shell) is still kept out by SQLite.

The lock is a ``flock``, which the kernel gives back when its holder dies. It is asked for without blocking, since a
blocking one has no time limit; who does not get it sleeps in the page of memory that the writers share until the gate
is left, in the order of arrival.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import StorageFailed
from ...filesystem import ofd_locks
from ...filesystem.permissions import create_companion
from ...filesystem.unsafe_files import open_private_file
from ...system.owned_fd import OwnedFd
from ...system.stdio_descriptors import move_above_stdio
from .lock_holders import busy_error
from .shared_page import SharedPage

if TYPE_CHECKING:
    from pathlib import Path

_MAX_SLEEP_SEC = 0.02
"""A holder that is killed wakes nobody: whoever sleeps looks again after this time, and is then last in the order."""
_POLL_SEC = 1e-3
"""The same where nobody has passed the gate since: who holds it may share no memory with us, and will wake nobody."""
_CHECKPOINT_RANGE = (0, 1)
"""The bytes of the gate file that are locked during a checkpoint."""
_SPIN_NS = 150_000
"""How long the next writer stands awake at the gate, in ns: it was woken when the one before it began to commit."""


def gate_path(database: Path) -> Path:
    """The gate file of a database."""
    return database.with_name(database.name + "-gate")


class Gate:
    """One open gate file. Not for use by two threads at once: the connection's mutex sees to that.

    Attributes:
        page: what the writers tell each other.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = gate_path(database)
        self._acquired = False  # or perhaps only about to be
        try:
            if not os.path.lexists(self._path):
                create_companion(self._path, database)
            self._file = OwnedFd(
                move_above_stdio(open_private_file(self._path, os.O_RDWR | os.O_CREAT, database=database))
            )
        except OSError as error:
            raise StorageFailed(
                f"cannot open {self._path}: {error.strerror}; check its owner and mode, and the disk"
            ) from error
        self._fd = self._file.fileno()
        try:
            if os.fstat(self._fd).st_mode & 0o777 == 0:
                os.fchmod(self._fd, 0o600)  # just made, under a umask that took our own rights away
            self.page = SharedPage(self._fd)
        except OSError as error:
            self._file.close()
            raise StorageFailed(f"cannot read {self._path}: {error.strerror}; check the disk") from error

    def acquire(self, started: float, timeout_sec: float) -> None:
        """Waits its turn.

        Args:
            started: when the caller began to wait, by ``time.monotonic()``.
            timeout_sec: how long it may wait in all, in seconds.

        Raises:
            Busy: the limit is over.
            StorageFailed: the file system refuses the lock.
        """
        self._acquired = True
        if self.page.has_successor or not self._try_lock():
            self._queue(started, timeout_sec)

    def prepare_release(self) -> None:
        """Wakes the next writer, so that it is awake by the time that the gate is left: waking up takes a while."""
        self.page.wake_successor()

    def _queue(self, started: float, timeout_sec: float) -> None:
        page = self.page
        last = -1
        while True:
            seen = page.releases
            if not page.has_successor:
                try:
                    page.announce_successor()
                    locked = self._spin_lock()
                finally:
                    page.withdraw_successor()
            else:
                locked = False
            if locked:
                return
            waited = time.monotonic() - started
            if waited > timeout_sec:
                raise busy_error(self._database, waited)
            page.wait_for_release(seen, _MAX_SLEEP_SEC if page.releases != last else _POLL_SEC)
            last = seen

    def _spin_lock(self) -> bool:
        """Takes the gate the moment that it is left, if that is soon: waking up takes longer than most transactions."""
        page = self.page
        give_up = time.monotonic_ns() + _SPIN_NS
        while True:
            seen = page.releases
            if self._try_lock():
                return True
            while page.releases == seen:
                if time.monotonic_ns() > give_up:
                    return False
                os.sched_yield()

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            raise StorageFailed(
                f"cannot lock {self._path}: {error.strerror}; nothing was written. Check the disk"
            ) from error

    def release(self) -> None:
        """Lets the next writer in."""
        self.page.count_release()
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._acquired = False
        self.page.wake_successor()

    def release_if_acquired(self) -> None:
        """Leaves the gate unless it was left already: for whoever was cut off and cannot know how far it came."""
        if self._acquired:
            self.release()

    def lock_checkpoint(self) -> bool:
        """Keep everybody else from copying the WAL; False when somebody is at it.

        SQLite has a lock for that, and one for each reader, in the ``-shm``: a POSIX lock, which any close of that file
        in this process drops. Two that copy at once can ruin the database: when one is done, the next writer starts the
        WAL over, and the other copies what it does not know. While one copies, nobody starts it over.
        """
        if not ofd_locks.AVAILABLE:
            return True
        try:
            ofd_locks.set_lock(self._fd, fcntl.F_WRLCK, *_CHECKPOINT_RANGE)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no such locks here: SQLite's own has to do
        return True

    def unlock_checkpoint(self) -> None:
        """Let others copy the WAL. It can be called again."""
        if ofd_locks.AVAILABLE:
            with suppress(OSError):
                ofd_locks.set_lock(self._fd, fcntl.F_UNLCK, *_CHECKPOINT_RANGE)

    def close(self) -> None:
        """Closes the file; a lock that is held on it is released."""
        if self._fd >= 0:
            self._acquired = False
            self.page.close()
            try:
                self._file.close()
            finally:
                self._fd = -1  # closed also where that reports an error


def jitter(shortest: float, longest: float) -> float:
    """Return some time between two, in seconds. Nothing is imported for it: there may be no file descriptor left."""
    return shortest + (longest - shortest) * (time.monotonic_ns() * 2654435761 >> 16 & 1023) / 1023
