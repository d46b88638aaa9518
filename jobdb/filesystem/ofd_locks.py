"""Open file description locks, which belong to an open file instead of the process.

Called by the gate and the lock guard of the SQLite engine, by scratch files and by the probe; calls only ``fcntl``.
Closing another descriptor of the file does not drop these locks. They conflict with the ordinary locks of every
process, including those of this process's own libraries. Only Linux has them.
Source: https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys

AVAILABLE = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")


def set_lock(descriptor: int, kind: int, start: int, length: int) -> None:
    """Set or release a lock on a range of bytes, without waiting.

    Args:
        descriptor: the open file; for ``F_WRLCK`` it is open for writing.
        kind: ``fcntl.F_RDLCK``, ``F_WRLCK`` or ``F_UNLCK``.
        start: the first byte.
        length: the number of bytes.

    Raises:
        BlockingIOError, PermissionError: another owner holds a conflicting lock.
        OSError: the file system has no such locks.
    """
    # struct flock: l_type, l_whence, l_start, l_len, l_pid; l_pid must be 0 for these locks
    request = struct.pack("@hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
