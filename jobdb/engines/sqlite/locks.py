"""Who holds a lock on the database: read from /proc/locks, for the message of a Busy error.

Only ``stat`` is used on the files: opening and closing one of them would drop this process's own locks on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import Busy


def lock_holder(database: Path) -> str | None:
    """ "python3 (pid 4711)" for a process that holds a write lock on the database, else None."""
    inodes = set()
    for suffix in ("-gate", "-shm", ""):
        try:
            inodes.add(os.stat(f"{database}{suffix}").st_ino)
        except OSError:
            continue
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        fields = line.split()
        if "->" in fields or len(fields) < 6 or fields[3] != "WRITE":
            continue
        pid, inode = fields[4], fields[5].rpartition(":")[2]
        if inode.isdigit() and int(inode) in inodes and pid.isdigit() and int(pid) != os.getpid():
            return f"{_command(pid)} (pid {pid})"
    return None


def readers(database: Path) -> list[tuple[int, str]]:
    """Other processes that hold a read mark of the WAL: their numbers and names.

    Bytes 123 to 127 of the -shm file are SQLite's reader locks.

    Source: https://sqlite.org/walformat.html#wal_locks
    """
    try:
        inode = os.stat(f"{database}-shm").st_ino
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    pids = set()
    for line in lines:
        fields = line.split()
        if "->" in fields or len(fields) < 8 or fields[5].rpartition(":")[2] != str(inode):
            continue
        first = int(fields[6])
        owner = int(fields[4])  # 0 and -1 stand for processes that cannot be seen from here
        if fields[3] == "READ" and 123 <= first <= 127 and owner > 0 and owner != os.getpid():
            pids.add(owner)
    return [(pid, _command(str(pid))) for pid in sorted(pids)]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip() or "a process"
    except OSError:
        return "a process"


def busy_error(database: Path, waited_sec: float) -> Busy:
    """The error of a wait that has reached its limit, with the holder where it can be known."""
    holder = lock_holder(database)
    who = f"; {holder} holds it" if holder else ""
    return Busy(
        f"{database} was locked by another writer for {waited_sec:.1f} s{who}. Nothing was written: try again, "
        "or allow a longer wait",
        waited_sec=waited_sec,
        holder=holder,
    )
