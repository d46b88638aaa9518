"""File descriptors of files that are kept open beside the database.

SQLite keeps its own files clear of 0, 1 and 2: in a process whose standard streams are closed, an error message of
some library would be written into the file that got the number. Source:
    https://sqlite.org/howtocorrupt.html#_file_descriptor
"""

from __future__ import annotations

import fcntl
import os

_FIRST_SAFE_FD = 3


def move_above_stdio(fd: int) -> int:
    """Return ``fd``, or a duplicate above 2 in its place, closed on exec."""
    if fd >= _FIRST_SAFE_FD:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SAFE_FD)
    finally:
        os.close(fd)
