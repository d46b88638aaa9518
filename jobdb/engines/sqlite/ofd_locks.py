"""Locks of an open file, not of a process: no other descriptor's close releases them. Linux only.

They conflict with everybody's POSIX locks on the same bytes, those of this process's own libraries included.
Source: https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys

AVAILABLE = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")


def set_lock(fd: int, kind: int, start: int, length: int) -> None:
    """Take or release a lock on some bytes of a file, without waiting.

    Args:
        fd: the open file.
        kind: ``fcntl.F_RDLCK``, ``F_WRLCK`` or ``F_UNLCK``.
        start: the first byte.
        length: how many bytes.

    Raises:
        BlockingIOError: somebody holds a lock that conflicts.
        OSError: this system or file system has no such locks.
    """
    # struct flock: l_type, l_whence, l_start, l_len, l_pid; l_pid must be 0 for these locks
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", kind, os.SEEK_SET, start, length, 0))
