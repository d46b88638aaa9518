"""Locks on an open WAL database that no other library in this process can release.

Called by ``open_files``, which keeps one guard per open file. Calls the kernel, never SQLite.

POSIX drops all of a process's locks on a file when any descriptor of it is closed: ``shutil.copy`` on the database of
an open registry is enough, or a second SQLite library such as the standard library's. Another process then believes
that it is the last user: it copies the WAL into the database and removes it, or truncates the ``-shm`` under our
mapping.

Linux has locks that belong to an open file instead (``F_OFD_SETLK``). They conflict with everybody's locks, including
those of this process's other libraries. So one descriptor per file holds a shared lock for as long as the database is
open here (`lock_bytes`):

    database  the range of SQLite's SHARED lock: nobody gets the EXCLUSIVE lock that the last one to close needs
    -shm      the DMS byte, by which SQLite tells that somebody is alive: nobody resets the file

Only shared locks are held, so SQLite's own locks work as before. Sources: https://sqlite.org/src/file/src/os_unix.c,
https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ...filesystem import ofd_locks
from .lock_bytes import DMS_BYTE, SHARED_RANGE

if TYPE_CHECKING:
    from pathlib import Path

WAL_INDEX_BYTES = 136
"""The length of the header of the ``-shm``, see `snapshot_check`."""


class LockGuard:
    """The descriptors that hold the locks on one database. Close it only when no connection of this process is open.

    Attributes:
        wal_index: the start of the ``-shm`` as 32-bit words, for `snapshot_check`; None where it cannot be mapped.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, tuple[int, int]]] = {}
        self._mapped: mmap.mmap | None = None
        self.wal_index: memoryview | None = None

    def acquire(self, path: Path) -> bool:
        """Acquire the locks that are not held yet; return False if this system or file system has no such locks.

        Called while a connection holds SQLite's own locks, so no conflicting lock can exist.
        """
        if not ofd_locks.AVAILABLE:
            return False
        for suffix, byte_range in (("", SHARED_RANGE), ("-shm", DMS_BYTE)):
            if suffix not in self._files:
                try:
                    fd = _open_above_stdio(f"{path}{suffix}")
                except OSError:
                    return False
                self._files[suffix] = fd, byte_range
        held = [_set_lock(fd, fcntl.F_RDLCK, byte_range) for fd, byte_range in self._files.values()]
        if self.wal_index is None:
            self._map(self._files["-shm"][0])
        return all(held)

    def _map(self, fd: int) -> None:
        with suppress(OSError, ValueError):
            if os.fstat(fd).st_size >= WAL_INDEX_BYTES:
                self._mapped = mmap.mmap(fd, WAL_INDEX_BYTES, prot=mmap.PROT_READ)
                self.wal_index = memoryview(self._mapped).cast("I")

    def release(self) -> None:
        """Release the locks and keep the descriptors: the last connection is about to close, and needs EXCLUSIVE."""
        for fd, byte_range in self._files.values():
            _set_lock(fd, fcntl.F_UNLCK, byte_range)

    def close(self) -> None:
        """Close the descriptors."""
        if self.wal_index is not None and self._mapped is not None:
            self.wal_index.release()
            self._mapped.close()
            self.wal_index = self._mapped = None
        for fd, _range in self._files.values():
            os.close(fd)
        self._files.clear()


def _open_above_stdio(path: str) -> int:
    """Open a file with a descriptor above 2, without duplicating: closing the first one would drop held locks."""
    below: list[int] = []
    try:
        while not below or below[-1] <= 2:
            below.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    finally:
        for fd in below:
            os.close(fd)


def _set_lock(fd: int, kind: int, byte_range: tuple[int, int]) -> bool:
    try:
        ofd_locks.set_lock(fd, kind, *byte_range)
    except OSError:
        return False
    return True
