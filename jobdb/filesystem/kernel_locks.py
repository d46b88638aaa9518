"""Which locks the kernel has given on a file, and to whom: read from /proc/locks. Linux only; elsewhere none are seen.

Only ``stat`` is used on the file: opening and closing it would drop this process's own locks on it.
Source: https://man7.org/linux/man-pages/man5/proc_locks.5.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TABLE = Path("/proc/locks")


class KernelLock(NamedTuple):
    """One lock that is held; those that wait are left out.

    Attributes:
        kind: "POSIX", "OFDLCK" or "FLOCK".
        exclusive: it excludes all others.
        pid: its holder; 0 or -1: a process that cannot be seen from here.
        first: its first byte.
    """

    kind: str
    exclusive: bool
    pid: int
    first: int

    @property
    def holder(self) -> str:
        """The holder as a person is told it: ``python3 (pid 4711)``."""
        return f"{process_name(self.pid)} (pid {self.pid})"


def locks_on(path: str | os.PathLike[str], *, table: Path = _TABLE) -> list[KernelLock]:
    """List the locks that are held on a file.

    Args:
        path: the file; links are followed.
        table: the kernel's table of locks.

    Returns:
        In the kernel's order; empty where there are none or that cannot be known.
    """
    try:
        status = os.stat(path)
        lines = table.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    found = []
    for line in lines:
        fields = line.split()
        if "->" in fields or len(fields) < 8 or not fields[6].isdigit():
            continue
        device, _, inode = fields[5].rpartition(":")
        # Btrfs and overlays give another anonymous device to stat than to /proc/locks.
        same = device == f"{major:02x}:{minor:02x}" or (major == 0 and device.startswith("00:"))
        if same and inode == str(status.st_ino):
            found.append(KernelLock(fields[1], fields[3] == "WRITE", int(fields[4]), int(fields[6])))
    return found


def process_name(pid: int) -> str:
    """Return the name of a process's program, or "a process"."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip() or "a process"
    except OSError:
        return "a process"
