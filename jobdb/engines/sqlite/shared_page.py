"""What the processes that write one database tell each other, in a page of memory that they share.

It holds no truth that a crash could spoil: who may write is decided by locks, what is durable by ``fdatasync``. It says
how far others have come, so that one sync serves all who wait for one, and it is where they sleep until it is their
turn. Words are read and written whole. The counters are each written under a lock; the rest are hints, and whoever goes
by one looks again after a moment.

The page is a file in ``/dev/shm``, named after the user, the boot and the gate file, and removed by its last user. Not
the gate file itself, beside the database: ``: > jobs.db-gate`` or ``cp -a backup/. .`` would cut it, and every process
that has it mapped would die of a signal at its next access; a copy from elsewhere would put old counters in it; a
second kernel on the same folder (a virtual machine) would begin it anew under the first. Rejected: ``pread`` and
``pwrite`` instead of a mapping, some fifteen system calls a commit; leases and seals, which no file in a folder has.

Who finds no such page (another user, a container with a ``/dev/shm`` of its own, a full one) has one for itself, and
syncs for itself: slower, never less durable. Only that a sync has failed must reach everybody: who has the log open is
told by the kernel, and the gate file says it to whoever opens it later.
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
"""After this time, in ns, nobody believes any more that the next writer is awake."""
_EVERYBODY = 2**31 - 1
_SUSPECT_MARK = b"jobdb: a sync of the log has failed\n"
_TRIES = 100
_POLL_SEC = 50e-6


class _PolledWord:
    """Stands in for a word where the system call cannot be had at the moment: who sleeps looks again, soon."""

    def wait(self, _seen: int, timeout_sec: float) -> None:
        time.sleep(min(timeout_sec, _POLL_SEC))

    def wake(self, _most: int) -> int:
        return 0


class SharedPage:
    """The page that belongs to an open gate file.

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
            self._memory = mmap.mmap(self._fd, SIZE)  # without a file it is this process's own
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
        """Whether other processes can have the same page."""
        return self._fd >= 0

    # -- commits and syncs

    @property
    def committed(self) -> int:
        """How many commits have been written to the WAL."""
        return self._long[_COMMITTED]

    def note_commit(self) -> int:
        """Counts one commit and returns its number. Under the gate, after COMMIT."""
        number = self._long[_COMMITTED] + 1
        self._long[_COMMITTED] = number
        return number

    @property
    def synced(self) -> int:
        """The last commit that is known to be durable, with all before it."""
        return self._long[_SYNCED]

    def note_sync(self, number: int) -> None:
        """A sync that began after commit ``number`` was written has succeeded. Under the sync's lock."""
        self._long[_SUCCESSES] += 1
        if number > self._long[_SYNCED]:
            self._long[_SYNCED] = number

    @property
    def successful_syncs(self) -> int:
        """How many syncs have succeeded. They come one after the other: the next but one to end has not begun yet."""
        return self._long[_SUCCESSES]

    @property
    def wal_suspect(self) -> bool:
        """Whether a sync of the WAL failed in some process, and nobody has written the WAL again since."""
        return self._long[_WAL_SUSPECT] != 0

    def mark_wal_suspect(self) -> None:
        """A sync failed. Noted in the gate file, too, for those who open the database later and share no memory."""
        self._long[_WAL_SUSPECT] = 1
        with suppress(OSError):
            os.pwrite(self._gate, _SUSPECT_MARK, 0)

    def clear_wal_suspect(self) -> None:
        """The whole WAL was written again and synced. Under the gate."""
        with suppress(OSError):
            os.ftruncate(self._gate, 0)
        self._long[_REWRITES] += 1
        self._long[_WAL_SUSPECT] = 0

    @property
    def rewrites(self) -> int:
        """How often the WAL was written again after a failed sync."""
        return self._long[_REWRITES]

    # -- queueing at the gate

    @property
    def releases(self) -> int:
        """Changes whenever the gate is left."""
        return self._short[_RELEASES]

    @property
    def has_successor(self) -> bool:
        """Whether a writer is awake to take the gate as soon as it is left. One that died is one for a moment only."""
        until = self._long[_SUCCESSOR_UNTIL]
        return until != 0 and 0 < until - time.monotonic_ns() <= _SUCCESSOR_NS

    def announce_successor(self) -> None:
        """Says that the caller takes the gate as soon as it is left."""
        self._long[_SUCCESSOR_UNTIL] = time.monotonic_ns() + _SUCCESSOR_NS

    def withdraw_successor(self) -> None:
        """Says that it does not, or has taken it."""
        self._long[_SUCCESSOR_UNTIL] = 0

    @property
    def has_waiters(self) -> bool:
        """Whether another writer waits for the gate. It may be one that has died."""
        return self._short[_WRITERS_WAITING] != 0 or self.has_successor

    def wait_for_release(self, seen: int, timeout_sec: float) -> None:
        """Sleeps until it is woken, unless the gate was left since ``seen``."""
        self._short[_WRITERS_WAITING] = 1
        self._word(_RELEASES).wait(seen, timeout_sec)
        self._short[_WRITERS_WAITING] = 1  # others may sleep still: whoever enters next shall look

    def count_release(self) -> None:
        """Notes that the gate is about to be left. Under the gate."""
        self._short[_RELEASES] = (self._short[_RELEASES] + 1) & 0xFFFFFFFF

    def wake_successor(self) -> None:
        """Wakes who has slept longest, unless somebody is awake already."""
        if self._short[_WRITERS_WAITING] and not self.has_successor:
            self._short[_WRITERS_WAITING] = 0
            if self._word(_RELEASES).wake(1):
                self._short[_WRITERS_WAITING] = 1

    # -- waiting for a sync

    @property
    def syncs(self) -> int:
        """Changes whenever a sync has ended."""
        return self._short[_SYNCS]

    def wait_for_sync(self, seen: int, timeout_sec: float) -> None:
        """Sleeps until a sync ends, unless one did since ``seen``."""
        self._short[_SYNC_WAITERS] = 1
        self._word(_SYNCS).wait(seen, timeout_sec)

    def count_sync(self) -> None:
        """Notes that a sync has ended. Under the sync's lock."""
        self._short[_SYNCS] = (self._short[_SYNCS] + 1) & 0xFFFFFFFF

    def wake_sync_waiters(self) -> None:
        """Wakes all who wait for a sync. After its lock was left."""
        if self._short[_SYNC_WAITERS]:
            self._short[_SYNC_WAITERS] = 0
            self._word(_SYNCS).wake(_EVERYBODY)

    def _word(self, index: int) -> FutexWord | _PolledWord:
        found = self._words.get(index)
        if found is None:
            try:
                from .futex import FutexWord
            except (ImportError, OSError):
                return _PolledWord()  # perhaps no file descriptor is left; after a commit that must be no error
            found = self._words[index] = FutexWord(self._memory, index * 4)
        return found

    def close(self) -> None:
        """Unmaps it; the last one removes its name.

        In a forked child, where a thread that is no more may have been using it, as far as it goes.
        """
        self._words.clear()
        with suppress(BufferError):
            self._long.release()
            self._short.release()
            self._memory.close()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if os.getpid() == self._pid:  # a child shares its parent's lock, and would change it
                _remove_unused(fd, self._path)
            os.close(fd)


def _open_shared(gate: int) -> tuple[int, str]:
    """The file in memory that belongs to a gate, with a lock that says that it is in use.

    Raises:
        OSError, StorageFailed: there can be none here.
    """
    path = page_path(gate)
    for _ in range(_TRIES):
        fd = move_above_stdio(open_private_file(path, os.O_RDWR | os.O_CREAT))
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            named = os.stat(path)
            if named.st_ino == os.fstat(fd).st_ino:
                os.posix_fallocate(fd, 0, SIZE)  # it could find no room when touched, and that is a signal
                return fd, path
        except FileNotFoundError:
            pass  # its last user has just removed it
        except BlockingIOError:
            time.sleep(0.001)  # or is about to
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(errno.EAGAIN, "it is removed again and again")


def _remove_unused(fd: int, path: str) -> None:
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            os.unlink(path)


def page_path(gate: int) -> str:
    """The name of the page for an open gate file: of this user, this boot and this file."""
    import hashlib

    device, inode = file_id(os.fstat(gate))
    text = f"page 2 of jobdb {boot_id()} {device} {inode}"
    return f"{FOLDER}/jobdb-{os.geteuid()}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
