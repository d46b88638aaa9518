"""The moving of file descriptors above those of the standard streams, for files kept open beside the database.

Called by the SQLite engine when it keeps a file open itself (the gate, the shared page, the WAL); imports nothing from
jobdb. SQLite avoids 0, 1 and 2 for its own files: in a process whose standard streams are closed, a library's error
message would be written into the file that got the number.
Source: https://sqlite.org/howtocorrupt.html#_file_descriptor
"""

from __future__ import annotations

import fcntl
import os

_FIRST_SAFE_FD = 3


def move_above_stdio(fd: int) -> int:
    """Return ``fd`` if it is above 2; otherwise replace it by a duplicate above 2, closed on exec."""
    if fd >= _FIRST_SAFE_FD:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SAFE_FD)
    finally:
        os.close(fd)
