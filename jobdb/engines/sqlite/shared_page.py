"""A page of memory that the processes writing one database share: counters of commits and syncs, and their wait queues.

Used by the gate, which maps it, and by the sync of the WAL. Calls the kernel, never SQLite.

Prior art: group commit in PostgreSQL and InnoDB, where one fsync serves all commits before it, and futex-based mutexes.
The page holds no state that a crash could destroy: file locks decide who may write, and ``fdatasync`` decides what is
durable. It records how far others have come, so that one sync serves all who wait for one, and waiters sleep on it.
Words are read and written whole. The counters are each written under a lock; the other words are hints, and whoever
relies on one checks again soon after.

The page is a file in ``/dev/shm``, named after the user, the boot and the gate file, and removed by its last user.

Rejected: the gate file itself, beside the database (``: > jobs.db-gate`` or ``cp -a backup/. .`` would truncate it, and
every process that has it mapped would die of SIGBUS; a copy from elsewhere would bring old counters; a second kernel on
the same folder, as of a virtual machine, would reset it under the first); ``pread`` and ``pwrite`` instead of a mapping
(some fifteen system calls per commit); leases and seals (no file in a folder has them).

A process that finds no such page (another user, a container with its own ``/dev/shm``, or a full one) uses a private
one and syncs on its own: slower, never less durable. Only a failed sync must be known to everybody: the kernel reports
it to all who have the WAL open, and the gate file records it for those who open it later.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import StorageFailed
from ...filesystem.unsafe_files import open_private_file
from ...system.identifiers import boot_id, file_id
from ...system.stdio_descriptors import move_above_stdio

if TYPE_CHECKING:
    from .futex import FutexWord

FOLDER = "/dev/shm"
SIZE = 4096
_COMMITTED, _SYNCED, _SUCCESSES, _WAL_SUSPECT, _REWRITES, _SUCCESSOR_UNTIL = range(1, 7)  # 64-bit words
_RELEASES, _WRITERS_WAITING, _SYNCS, _SYNC_WAITERS = range(16, 20)  # 32-bit words
_SUCCESSOR_NS = 1_000_000
"""After this time, in ns, an announced successor counts as dead."""
_ALL_WAITERS = 2**31 - 1
_SUSPECT_MARK = b"jobdb: a sync of the log has failed\n"
_MAX_ATTEMPTS = 100
_POLL_SEC = 50e-6


class _PolledWord:
    """A word for use while the futex system call cannot be loaded: its waiters poll."""

    def wait(self, _seen: int, timeout_sec: float) -> None:
        time.sleep(min(timeout_sec, _POLL_SEC))

    def wake(self, _max_waiters: int) -> int:
        return 0


class SharedPage:
    """The page of an open gate file.

    "Under the gate" and "under the sync's lock" name the lock that the caller holds.

    Args:
        gate: the gate file, open for reading and writing.

    Raises:
        OSError: the gate file cannot be read.
    """

    def __init__(self, gate: int) -> None:
        self._gate = gate
        self._pid = os.getpid()
        try:
            self._fd, self._path = _open_shared(gate)
        except (OSError, StorageFailed):
            self._fd, self._path = -1, ""
        try:
            self._memory = mmap.mmap(self._fd, SIZE)  # without a file (-1) the memory is this process's own
        except BaseException:
            if self._fd >= 0:
                os.close(self._fd)
            raise
        self._long = memoryview(self._memory).cast("Q")
        self._short = memoryview(self._memory).cast("I")
        self._words: dict[int, FutexWord] = {}
        if os.pread(gate, len(_SUSPECT_MARK), 0) == _SUSPECT_MARK:
            self._long[_WAL_SUSPECT] = 1

    @property
    def shared(self) -> bool:
        """True if other processes can share the page."""
        return self._fd >= 0

    # -- commits and syncs

    @property
    def committed(self) -> int:
        """The number of commits that were written to the WAL."""
        return self._long[_COMMITTED]

    def note_commit(self) -> int:
        """Count one commit and return its number. Under the gate, after COMMIT."""
        number = self._long[_COMMITTED] + 1
        self._long[_COMMITTED] = number
        return number

    @property
    def synced(self) -> int:
        """The number of the last commit that is known to be durable, with all before it."""
        return self._long[_SYNCED]

    def note_sync(self, number: int) -> None:
        """Record that a sync which began after commit ``number`` was written has succeeded. Under the sync's lock."""
        self._long[_SUCCESSES] += 1
        if number > self._long[_SYNCED]:
            self._long[_SYNCED] = number

    @property
    def successful_syncs(self) -> int:
        """The number of successful syncs. They never overlap, so the next but one to end has not begun yet."""
        return self._long[_SUCCESSES]

    @property
    def wal_suspect(self) -> bool:
        """True if a sync of the WAL failed in some process, and nobody has rewritten the WAL since."""
        return self._long[_WAL_SUSPECT] != 0

    def mark_wal_suspect(self) -> None:
        """Record a failed sync, in the gate file too: for those who open the database later, or share no memory."""
        self._long[_WAL_SUSPECT] = 1
        with suppress(OSError):
            os.pwrite(self._gate, _SUSPECT_MARK, 0)

    def clear_wal_suspect(self) -> None:
        """Record that the whole WAL was rewritten and synced. Under the gate."""
        with suppress(OSError):
            os.ftruncate(self._gate, 0)
        self._long[_REWRITES] += 1
        self._long[_WAL_SUSPECT] = 0

    @property
    def rewrites(self) -> int:
        """The number of times the WAL was rewritten after a failed sync."""
        return self._long[_REWRITES]

    # -- queueing at the gate

    @property
    def releases(self) -> int:
        """A number that changes whenever the gate is released."""
        return self._short[_RELEASES]

    @property
    def has_successor(self) -> bool:
        """True if a writer is awake to acquire the gate once it is released. One that died counts only briefly."""
        until = self._long[_SUCCESSOR_UNTIL]
        return until != 0 and 0 < until - time.monotonic_ns() <= _SUCCESSOR_NS

    def announce_successor(self) -> None:
        """Announce that the caller spins for the gate."""
        self._long[_SUCCESSOR_UNTIL] = time.monotonic_ns() + _SUCCESSOR_NS

    def withdraw_successor(self) -> None:
        """Withdraw the announcement: the caller has acquired the gate, or has given up."""
        self._long[_SUCCESSOR_UNTIL] = 0

    @property
    def has_waiters(self) -> bool:
        """True if another writer waits for the gate, as far as is known: it may have died."""
        return self._short[_WRITERS_WAITING] != 0 or self.has_successor

    def wait_for_release(self, seen: int, timeout_sec: float) -> None:
        """Sleep until woken, or for ``timeout_sec``, unless the gate was released since ``seen`` was read."""
        self._short[_WRITERS_WAITING] = 1
        self._word(_RELEASES).wait(seen, timeout_sec)
        self._short[_WRITERS_WAITING] = 1  # others may still sleep: the next holder must check

    def count_release(self) -> None:
        """Record that the gate is about to be released. Under the gate."""
        self._short[_RELEASES] = (self._short[_RELEASES] + 1) & 0xFFFFFFFF

    def wake_successor(self) -> None:
        """Wake the longest waiter, unless a successor is awake already."""
        if self._short[_WRITERS_WAITING] and not self.has_successor:
            self._short[_WRITERS_WAITING] = 0
            if self._word(_RELEASES).wake(1):
                self._short[_WRITERS_WAITING] = 1

    # -- waiting for a sync

    @property
    def syncs(self) -> int:
        """A number that changes whenever a sync ends."""
        return self._short[_SYNCS]

    def wait_for_sync(self, seen: int, timeout_sec: float) -> None:
        """Sleep until a sync ends, or for ``timeout_sec``, unless one ended since ``seen`` was read."""
        self._short[_SYNC_WAITERS] = 1
        self._word(_SYNCS).wait(seen, timeout_sec)

    def count_sync(self) -> None:
        """Record that a sync has ended. Under the sync's lock."""
        self._short[_SYNCS] = (self._short[_SYNCS] + 1) & 0xFFFFFFFF

    def wake_sync_waiters(self) -> None:
        """Wake all who wait for a sync. After its lock was released."""
        if self._short[_SYNC_WAITERS]:
            self._short[_SYNC_WAITERS] = 0
            self._word(_SYNCS).wake(_ALL_WAITERS)

    def _word(self, index: int) -> FutexWord | _PolledWord:
        found = self._words.get(index)
        if found is None:
            try:
                from .futex import FutexWord
            except (ImportError, OSError):
                return _PolledWord()  # perhaps no file descriptor is left, which must not be an error after a commit
            found = self._words[index] = FutexWord(self._memory, index * 4)
        return found

    def close(self) -> None:
        """Unmap the page; its last user removes the file.

        In a forked child, where a thread that no longer exists may have been using it, this is done as far as possible.
        """
        self._words.clear()
        with suppress(BufferError):
            self._long.release()
            self._short.release()
            self._memory.close()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if os.getpid() == self._pid:  # a forked child shares the lock with its parent and would change it
                _remove_unused(fd, self._path)
            os.close(fd)


def _open_shared(gate: int) -> tuple[int, str]:
    """Open the page file of a gate, with a shared lock that marks it as in use; return its descriptor and path.

    Raises:
        OSError, StorageFailed: this system cannot have one.
    """
    path = page_path(gate)
    for _ in range(_MAX_ATTEMPTS):
        fd = move_above_stdio(open_private_file(path, os.O_RDWR | os.O_CREAT))
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            named = os.stat(path)
            if named.st_ino == os.fstat(fd).st_ino:
                os.posix_fallocate(fd, 0, SIZE)  # without reserved space, accessing the page could raise SIGBUS
                return fd, path
        except FileNotFoundError:
            pass  # its last user has just removed it
        except BlockingIOError:
            time.sleep(0.001)  # or is about to
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(errno.EAGAIN, "the page is removed again and again")


def _remove_unused(fd: int, path: str) -> None:
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            os.unlink(path)


def page_path(gate: int) -> str:
    """Return the path of the page for an open gate file: one per user, boot and file."""
    import hashlib

    device, inode = file_id(os.fstat(gate))
    text = f"page 2 of jobdb {boot_id()} {device} {inode}"
    return f"{FOLDER}/jobdb-{os.geteuid()}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
