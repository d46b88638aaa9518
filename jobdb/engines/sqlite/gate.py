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
from ...filesystem.permissions import create_beside, open_private
from ...system.descriptors import Owner
from .descriptors import above_standard_streams
from .locks import busy_error
from .shared_page import SharedPage

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_SLEEP_SEC = 0.02
"""A holder that is killed wakes nobody: whoever sleeps looks again after this time, and is then last in the order."""
_POLL_SEC = 1e-3
"""The same where nobody has passed the gate since: who holds it may share no memory with us, and will wake nobody."""
_CHECKPOINT = (0, 1)
"""The bytes of the gate file that are locked during a checkpoint."""
_AT_THE_DOOR_NS = 150_000
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
        self._entered = False  # or perhaps only about to be
        try:
            if not os.path.lexists(self._path):
                create_beside(self._path, database)
            self._file = Owner(
                above_standard_streams(open_private(self._path, os.O_RDWR | os.O_CREAT, database=database))
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

    def enter(self, started: float, limit_sec: float) -> None:
        """Waits its turn.

        Args:
            started: when the caller began to wait, by ``time.monotonic()``.
            limit_sec: how long it may wait in all, in seconds.

        Raises:
            Busy: the limit is over.
            StorageFailed: the file system refuses the lock.
        """
        self._entered = True
        if self.page.has_heir or not self._taken():
            self._queue(started, limit_sec)

    def about_to_leave(self) -> None:
        """Wakes the next writer, so that it is awake by the time that the gate is left: waking up takes a while."""
        self.page.wake_heir()

    def _queue(self, started: float, limit_sec: float) -> None:
        page = self.page
        last = -1
        while True:
            seen = page.turn
            if not page.has_heir:
                try:
                    page.be_heir()
                    taken = self._taken_at_the_door()
                finally:
                    page.be_no_heir()
            else:
                taken = False
            if taken:
                return
            waited = time.monotonic() - started
            if waited > limit_sec:
                raise busy_error(self._database, waited)
            page.sleep_for_turn(seen, _LONGEST_SLEEP_SEC if page.turn != last else _POLL_SEC)
            last = seen

    def _taken_at_the_door(self) -> bool:
        """Takes the gate the moment that it is left, if that is soon: waking up takes longer than most transactions."""
        page = self.page
        give_up = time.monotonic_ns() + _AT_THE_DOOR_NS
        while True:
            seen = page.turn
            if self._taken():
                return True
            while page.turn == seen:
                if time.monotonic_ns() > give_up:
                    return False
                os.sched_yield()

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            raise StorageFailed(
                f"cannot lock {self._path}: {error.strerror}; nothing was written. Check the disk"
            ) from error

    def leave(self) -> None:
        """Lets the next writer in."""
        self.page.pass_turn()
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._entered = False
        self.page.wake_heir()

    def leave_if_entered(self) -> None:
        """Leaves the gate unless it was left already: for whoever was cut off and cannot know how far it came."""
        if self._entered:
            self.leave()

    def begin_checkpoint(self) -> bool:
        """Keep everybody else from copying the WAL; False when somebody is at it.

        SQLite has a lock for that, and one for each reader, in the ``-shm``: a POSIX lock, which any close of that file
        in this process drops. Two that copy at once can ruin the database: when one is done, the next writer starts the
        WAL over, and the other copies what it does not know. While one copies, nobody starts it over.
        """
        if not ofd_locks.AVAILABLE:
            return True
        try:
            ofd_locks.set_lock(self._fd, fcntl.F_WRLCK, *_CHECKPOINT)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no such locks here: SQLite's own has to do
        return True

    def end_checkpoint(self) -> None:
        """Let others copy the WAL. It can be called again."""
        if ofd_locks.AVAILABLE:
            with suppress(OSError):
                ofd_locks.set_lock(self._fd, fcntl.F_UNLCK, *_CHECKPOINT)

    def close(self) -> None:
        """Closes the file; a lock that is held on it is released."""
        if self._fd >= 0:
            self._entered = False
            self.page.close()
            try:
                self._file.close()
            finally:
                self._fd = -1  # closed also where that reports an error


def jitter(shortest: float, longest: float) -> float:
    """Return some time between two, in seconds. Nothing is imported for it: there may be no file descriptor left."""
    return shortest + (longest - shortest) * (time.monotonic_ns() * 2654435761 >> 16 & 1023) / 1023
