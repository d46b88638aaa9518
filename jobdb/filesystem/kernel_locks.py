"""The locks that the kernel has granted, read from /proc/locks. Linux only; elsewhere none are found.

Called by the SQLite engine, to name the holder in a Busy error and when a read must know whether it still has its lock,
and by the old registry's lock. Files are examined with ``stat`` only: opening and closing one would drop this process's
own locks on it.
Source: https://man7.org/linux/man-pages/man5/proc_locks.5.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLE = Path("/proc/locks")


class KernelLock(NamedTuple):
    """One lock that is held; waiting requests are left out.

    Attributes:
        kind: "POSIX", "OFDLCK" or "FLOCK".
        exclusive: it excludes all others.
        pid: its holder; 0 or -1 for a process outside this PID namespace.
        first: its first byte.
    """

    kind: str
    exclusive: bool
    pid: int
    first: int

    @property
    def holder(self) -> str:
        """The holder for a message: ``python3 (pid 4711)``."""
        return f"{process_name(self.pid)} (pid {self.pid})"


def locks_on(path: str | os.PathLike[str], *, table: Path = _TABLE) -> list[KernelLock]:
    """List the locks that are held on a file.

    Args:
        path: the file; links are followed.
        table: the kernel's table of locks.

    Returns:
        The locks in the kernel's order; empty if there are none or they cannot be determined.
    """
    try:
        status = os.stat(path)
        text = table.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return []
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    own_device, own_inode = f"{major:02x}:{minor:02x}", str(status.st_ino)
    return [
        lock
        for lock, device, inode in _parse(text)
        # Btrfs and overlays report another anonymous device to stat than in /proc/locks.
        if inode == own_inode and (device == own_device or (major == 0 and device.startswith("00:")))
    ]


def locks_of_process(pid: int, *, table: Path = _TABLE) -> list[KernelLock]:
    """List the locks that a process holds on any file.

    Raises:
        OSError, UnicodeDecodeError: the table cannot be read.
    """
    return [lock for lock, _device, _inode in _parse(table.read_text("ascii")) if lock.pid == pid]


def _parse(text: str) -> Iterator[tuple[KernelLock, str, str]]:
    """Yield each held lock with the device and the inode of its file, as the table shows them."""
    for line in text.splitlines():
        fields = line.split()
        if "->" in fields or len(fields) < 8 or not fields[6].isdigit():
            continue
        device, _, inode = fields[5].rpartition(":")
        yield KernelLock(fields[1], fields[3] == "WRITE", int(fields[4]), int(fields[6])), device, inode


def process_name(pid: int) -> str:
    """Return the name of a process's program, or "a process" where it cannot be read."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip() or "a process"
    except OSError:
        return "a process"
