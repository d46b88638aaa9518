"""The gate: a file beside the database behind which writers queue.

Called by the store's write path, by checkpoints, and where a file is created or restored. Calls the kernel and the
shared page, never SQLite.

Prior art: SQLite's own write lock is polled by its busy handler. The process that has just released it is the likeliest
to get it again, and the others starve. Writers that acquire the gate first find SQLite's lock free. The gate is
advisory: a program that does not know it (the sqlite3 shell) is still excluded by SQLite's lock.

The lock is a ``flock``, which the kernel releases when its holder dies. A writer that does not get it sleeps on a futex
in the page of memory that the writers share (`shared_page`), and is woken in the order of arrival. Before it commits,
the holder wakes its successor, which spins until the gate is released: waking up takes longer than most transactions.

Rejected: a blocking ``flock``, which has no time limit; polling, which costs the holder the processor that it needs; a
lock in shared memory alone, which a killed holder would keep forever.
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
"""A holder that is killed wakes nobody, so waiters check again after this time; they are then last in the queue."""
_POLL_SEC = 1e-3
"""That time if nobody has released the gate since: its holder may not share the page with us, and then wakes nobody."""
_CHECKPOINT_RANGE = (0, 1)
"""The byte range of the gate file (start, length) that is locked during a checkpoint."""
_SPIN_NS = 150_000
"""The time for which the successor spins, in ns: it was woken when the holder began to commit."""


def gate_path(database: Path) -> Path:
    """Return the gate file of a database."""
    return database.with_name(database.name + "-gate")


class Gate:
    """One open gate file. Not thread-safe: its users hold the write path's mutex.

    Args:
        database: the database file; the gate file is created with its owner and mode.

    Attributes:
        page: the memory that the writers share.

    Raises:
        StorageFailed: the gate file cannot be opened.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = gate_path(database)
        self._acquired = False  # True from just before the attempt: an exception may follow the lock at once
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
                os.fchmod(self._fd, 0o600)  # just created, under a umask that removed the owner's permissions
            self.page = SharedPage(self._fd)
        except OSError as error:
            self._file.close()
            raise StorageFailed(f"cannot read {self._path}: {error.strerror}; check the disk") from error

    def acquire(self, started: float, timeout_sec: float) -> None:
        """Acquire the gate, queueing behind other writers.

        Args:
            started: when the caller began to wait, by ``time.monotonic()``.
            timeout_sec: how long it may wait since then, in seconds.

        Raises:
            Busy: the limit is reached.
            StorageFailed: the file system refuses the lock.
        """
        self._acquired = True
        if self.page.has_successor or not self._try_lock():
            self._queue(started, timeout_sec)

    def prepare_release(self) -> None:
        """Wake the successor, so that it is awake by the time the gate is released."""
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
        """Spin briefly before sleeping; return whether the gate was acquired."""
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
        """Release the gate and wake the successor."""
        self.page.count_release()
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._acquired = False
        self.page.wake_successor()

    def release_if_acquired(self) -> None:
        """Release the gate unless it was released: for code that was interrupted and cannot know how far it came."""
        if self._acquired:
            self.release()

    def lock_checkpoint(self) -> bool:
        """Keep others from running a checkpoint; return False when one is running.

        SQLite has a lock for this in the ``-shm``, as it has for readers: a POSIX lock, which any close of that file in
        this process drops. Two concurrent checkpoints can corrupt the database: when one ends, the next writer restarts
        the WAL, and the other continues to copy frames that have been overwritten. While a checkpoint holds the lock,
        nobody restarts the WAL.
        """
        if not ofd_locks.AVAILABLE:
            return True
        try:
            ofd_locks.set_lock(self._fd, fcntl.F_WRLCK, *_CHECKPOINT_RANGE)
        except BlockingIOError:
            return False
        except OSError:
            pass  # this file system has no such locks: SQLite's own has to suffice
        return True

    def unlock_checkpoint(self) -> None:
        """Let others run a checkpoint. Idempotent."""
        if ofd_locks.AVAILABLE:
            with suppress(OSError):
                ofd_locks.set_lock(self._fd, fcntl.F_UNLCK, *_CHECKPOINT_RANGE)

    def close(self) -> None:
        """Close the file, which releases a lock that is held on it."""
        if self._fd >= 0:
            self._acquired = False
            self.page.close()
            try:
                self._file.close()
            finally:
                self._fd = -1  # it is closed even if close reports an error


def jitter(shortest: float, longest: float) -> float:
    """Return a random time between two, in seconds. Imports nothing, since no file descriptor may be left."""
    return shortest + (longest - shortest) * (time.monotonic_ns() * 2654435761 >> 16 & 1023) / 1023
