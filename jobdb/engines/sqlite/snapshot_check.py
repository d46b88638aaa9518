"""Detecting that a read has lost the lock that protects its snapshot.

Called by the read path at the end of a read, and by the search for damage. Reads mapped memory and the kernel's list of
locks; never opens the ``-shm``.

A read holds a lock on one of five bytes of the ``-shm`` (a read mark), so that nobody copies later pages into the
database, or restarts the WAL, while it runs. It is a POSIX lock: any close of that file in this process drops it. Data
that is read from then on may mix two states, or look damaged.

No lock of ours can replace it, since it cannot be told from outside which of the bytes SQLite chose. But the index in
the ``-shm`` shows how far the WAL was copied, and which WAL it is. If that has moved past the state in which the read
began, and this process holds no read mark, the result is discarded.

Sources: https://sqlite.org/walformat.html#the_wal_index_file_format,
https://man7.org/linux/man-pages/man5/proc_locks.5.html
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ...errors import Busy
from .lock_bytes import READ_MARKS

if TYPE_CHECKING:
    from pathlib import Path

MX_FRAME, SALT, BACKFILL_ATTEMPTED = 4, 8, 32
"""The positions in the index of the WAL's length, its identity, and how far it was copied: the 32-bit words mxFrame,
aSalt[0] and nBackfillAttempted. The read path spells out the two functions below: a call takes longer than they do."""
_CHECK_COUNT = 10
_PAUSE_SEC = 0.0005

Snapshot = tuple[int, int]
"""The WAL when a read began: its length in frames, and its salt."""


def note_snapshot(wal_index: memoryview) -> Snapshot:
    """Note the state of the WAL before a read's first statement: a deferred BEGIN takes no snapshot yet."""
    return wal_index[MX_FRAME], wal_index[SALT]


def check_snapshot(path: Path, wal_index: memoryview, snapshot: Snapshot) -> None:
    """Refuse a read whose lock was lost and whose snapshot others have moved past; called before the read ends.

    The index may also show this because the read began with a later commit than was noted; then it still has its lock.

    Raises:
        Busy: this process holds no read mark.
    """
    if wal_index[BACKFILL_ATTEMPTED] > snapshot[0] or wal_index[SALT] != snapshot[1]:
        require_read_mark(path)


def require_read_mark(path: Path) -> None:
    """Refuse unless this process holds a read mark at every check.

    A transaction of another thread holds one only briefly; the read's own mark is found every time.
    """
    for _ in range(_CHECK_COUNT):
        if not _holds_read_mark():
            raise Busy(
                f"{path}: the result was discarded, because another library in this process has closed the database "
                "or its -shm meanwhile, and so dropped this registry's locks. Nothing was changed: try again, and read "
                "such files in another process ('jobdb backup', 'jobdb query')",
                waited_sec=0.0,
            )
        time.sleep(_PAUSE_SEC)


def _holds_read_mark() -> bool:
    """Return whether this process holds a read mark of some database; True if that cannot be determined.

    Inodes are not compared: some file systems show a different one in /proc/locks than in ``stat``.
    """
    pid = os.getpid()
    try:
        from ...filesystem.kernel_locks import locks_of_process  # which needs a file descriptor

        if os.readlink("/proc/self") != str(pid):
            return True  # /proc belongs to another PID namespace
        return any(lock.kind == "POSIX" and lock.first in READ_MARKS for lock in locks_of_process(pid))
    except (ImportError, OSError, UnicodeDecodeError):
        return True
