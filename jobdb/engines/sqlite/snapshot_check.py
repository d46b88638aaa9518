"""Noticing that a read has lost the lock that kept its snapshot.

A read keeps a lock on one of five bytes of the ``-shm``, so that nobody copies later pages into the database, or starts
the WAL over, under it. It is a POSIX lock: any close of that file in this process drops it. What was read from then on
may be from two moments, or look damaged. No lock of ours can stand in for it, for nobody can tell from outside which of
the bytes SQLite took. But the index in the ``-shm`` says how far the WAL was copied, and which WAL it is. Where that
has gone past what the read began with, and this process holds no such lock, the answer is not used.

Sources: https://sqlite.org/walformat.html#the_wal_index_file_format, https://man7.org/linux/man-pages/man5/proc_locks.5.html
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ...errors import Busy

if TYPE_CHECKING:
    from pathlib import Path

WAL_INDEX_BYTES = 136
MX_FRAME, SALT, BACKFILL_ATTEMPTED = 4, 8, 32
"""Where the index says how long the WAL is, which one, and how far it was copied: the
32-bit words mxFrame, aSalt[0] and nBackfillAttempted.

A read notes the first two before it begins. If the third is more than the first was then, or the second another, others
went on past it, or it began with a later commit than was noted. Spelt out in `scopes`, where a call would cost as much.
"""
_READ_LOCKS = range(123, 128)
_LOOKS = 10
_PAUSE_SEC = 0.0005


def require_reader_lock(path: Path) -> None:
    """Refuse what was read if this process has no reader's lock; called before the read ends.

    A transaction of another thread has such a lock for a moment. The read's own one is there at every look.

    Raises:
        Busy: it has none.
    """
    for _ in range(_LOOKS):
        if not _holds_reader_lock():
            raise Busy(
                f"{path}: what was read was not used, for another library in this process has closed the database or "
                "its -shm meanwhile, and so dropped this registry's locks. Nothing was changed: try again, and read "
                "such files in another process ('jobdb backup', 'jobdb query')",
                waited_sec=0.0,
            )
        time.sleep(_PAUSE_SEC)


def _holds_reader_lock() -> bool:
    """Also where that cannot be known. Not by inode: some file systems show another one than ``stat``."""
    pid = str(os.getpid())
    try:
        if os.readlink("/proc/self") != pid:
            return True  # of another namespace
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if fields[1] == "POSIX" and fields[4] == pid and fields[6].isdigit() and int(fields[6]) in _READ_LOCKS:
                    return True
    except (OSError, IndexError, UnicodeDecodeError):
        return True
    return False
