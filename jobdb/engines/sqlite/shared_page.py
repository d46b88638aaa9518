"""What the processes that write one database tell each other, in a page of memory that they share.

The page is the content of the gate file. It holds no truth that a crash could spoil: who may write is decided by
locks, what is durable by ``fdatasync``. It says how far others have come, so that one sync serves all who wait for
one, and it is where they sleep until it is their turn.

A page left by an earlier boot, or copied from elsewhere with its database, says nothing: its first word names the boot
and the file that it belongs to. Words are read and written whole. The counters are each written under a lock; the rest
are hints, and whoever goes by one looks again after a moment.

A mapped page that the disk cannot read back any more is a signal, not an error. SQLite's own ``-shm`` file beside it is
mapped likewise, so a process that writes a WAL database has that exposure in any case.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .futex import Word

SIZE = 4096
_IDENTITY, _COMMITTED, _SYNCED, _SUCCESSES, _HOLE, _REWRITES, _HEIR_UNTIL = range(7)  # 64-bit words
_TURN, _WRITERS_SLEEP, _SYNCS, _SYNCERS_SLEEP = range(16, 20)  # 32-bit words
_EPOCH = 1 << 40
_HEIR_NS = 1_000_000
"""After this time, in ns, nobody believes any more that the next writer is awake."""
_EVERYBODY = 2**31 - 1
_POLL_SEC = 50e-6


def boot_identity() -> str:
    """What changes when the machine is started anew; empty where that cannot be known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class _Polled:
    """Stands in for a word where the system call cannot be had at the moment: who sleeps looks again, soon."""

    def wait(self, _seen: int, timeout_sec: float) -> None:
        time.sleep(min(timeout_sec, _POLL_SEC))

    def wake(self, _most: int) -> int:
        return 0


class SharedPage:
    """The mapped page of an open gate file.

    Args:
        fd: the gate file, open for reading and writing, of at least ``SIZE`` bytes.

    Raises:
        OSError: it cannot be mapped.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)
        self._long = memoryview(self._memory).cast("Q")
        self._short = memoryview(self._memory).cast("I")
        self._words: dict[int, Word] = {}

    @classmethod
    def existing(cls, fd: int) -> SharedPage | None:
        """The page that stands in the file; None if there is none of this boot and file."""
        # Read before it is mapped: a disk that fails then is an error, and would be a signal later.
        content = os.pread(fd, SIZE, 0)
        if len(content) < SIZE or int.from_bytes(content[:8], sys.byteorder) != _identity(fd):
            return None
        return cls(fd)

    @classmethod
    def begun(cls, fd: int) -> SharedPage:
        """A page of this boot and file, begun anew unless another process has just done it. Under the gate's lock."""
        if len(os.pread(fd, SIZE, 0)) < SIZE:
            os.pwrite(fd, bytes(SIZE), 0)  # written, not only lengthened: a hole could find the disk full when touched
        page = cls(fd)
        identity = _identity(fd)
        if page._long[_IDENTITY] != identity:
            page._begin(identity)
        return page

    def _begin(self, identity: int) -> None:
        """Starts the counters over, far beyond what any process of an earlier life of this page can still note."""
        start = (max(self._long[_COMMITTED], self._long[_SYNCED]) // _EPOCH + 1) * _EPOCH
        start = start if start < 2**62 else 0
        self._memory[:] = bytes(SIZE)
        self._long[_COMMITTED] = self._long[_SYNCED] = start
        self._long[_IDENTITY] = identity

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
    def successes(self) -> int:
        """How many syncs have succeeded. They come one after the other: the next but one to end has not begun yet."""
        return self._long[_SUCCESSES]

    @property
    def hole(self) -> bool:
        """Whether a sync of the WAL failed in some process, and nobody has written the WAL again since."""
        return self._long[_HOLE] != 0

    def mark_hole(self) -> None:
        """A sync failed."""
        self._long[_HOLE] = 1

    def clear_hole(self) -> None:
        """The whole WAL was written again and synced. Under the gate."""
        self._long[_REWRITES] += 1
        self._long[_HOLE] = 0

    @property
    def rewrites(self) -> int:
        """How often the WAL was written again after a failed sync."""
        return self._long[_REWRITES]

    # -- queueing at the gate

    @property
    def turn(self) -> int:
        """Changes whenever the gate is left."""
        return self._short[_TURN]

    @property
    def has_heir(self) -> bool:
        """Whether a writer is awake to take the gate as soon as it is left. One that died is one for a moment only."""
        until = self._long[_HEIR_UNTIL]
        return until != 0 and 0 < until - time.monotonic_ns() <= _HEIR_NS

    def be_heir(self) -> None:
        """Says that the caller takes the gate as soon as it is left."""
        self._long[_HEIR_UNTIL] = time.monotonic_ns() + _HEIR_NS

    def be_no_heir(self) -> None:
        """Says that it does not, or has taken it."""
        self._long[_HEIR_UNTIL] = 0

    @property
    def somebody_waits(self) -> bool:
        """Whether another writer waits for the gate. It may be one that has died."""
        return self._short[_WRITERS_SLEEP] != 0 or self.has_heir

    def sleep_for_turn(self, seen: int, timeout_sec: float) -> None:
        """Sleeps until it is woken, unless the gate was left since ``seen``."""
        self._short[_WRITERS_SLEEP] = 1
        self._word(_TURN).wait(seen, timeout_sec)
        self._short[_WRITERS_SLEEP] = 1  # others may sleep still: whoever enters next shall look

    def pass_turn(self) -> None:
        """Notes that the gate is about to be left. Under the gate."""
        self._short[_TURN] = (self._short[_TURN] + 1) & 0xFFFFFFFF

    def wake_heir(self) -> None:
        """Wakes who has slept longest, unless somebody is awake already."""
        if self._short[_WRITERS_SLEEP] and not self.has_heir:
            self._short[_WRITERS_SLEEP] = 0
            if self._word(_TURN).wake(1):
                self._short[_WRITERS_SLEEP] = 1

    # -- waiting for a sync

    @property
    def syncs(self) -> int:
        """Changes whenever a sync has ended."""
        return self._short[_SYNCS]

    def sleep_for_sync(self, seen: int, timeout_sec: float) -> None:
        """Sleeps until a sync ends, unless one did since ``seen``."""
        self._short[_SYNCERS_SLEEP] = 1
        self._word(_SYNCS).wait(seen, timeout_sec)

    def end_sync(self) -> None:
        """Notes that a sync has ended. Under the sync's lock."""
        self._short[_SYNCS] = (self._short[_SYNCS] + 1) & 0xFFFFFFFF

    def wake_syncers(self) -> None:
        """Wakes all who wait for a sync. After its lock was left."""
        if self._short[_SYNCERS_SLEEP]:
            self._short[_SYNCERS_SLEEP] = 0
            self._word(_SYNCS).wake(_EVERYBODY)

    def _word(self, index: int) -> Word | _Polled:
        found = self._words.get(index)
        if found is None:
            try:
                from .futex import Word
            except (ImportError, OSError):
                return _Polled()  # perhaps no file descriptor is left; after a commit that must be no error
            found = self._words[index] = Word(self._memory, index * 4)
        return found

    def close(self) -> None:
        """Unmaps it; in a forked child, where a thread that is no more may have been using it, as far as it goes."""
        self._words.clear()
        with suppress(BufferError):
            self._long.release()
            self._short.release()
            self._memory.close()


def _identity(fd: int) -> int:
    import hashlib

    status = os.fstat(fd)
    text = f"jobdb gate 1 {boot_identity()} {status.st_dev} {status.st_ino}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") or 1
