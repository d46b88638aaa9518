"""Who holds a lock on the database, for the message of a Busy error."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import Busy
from ...filesystem.kernel_locks import locks_on, process_name

if TYPE_CHECKING:
    from pathlib import Path


def lock_holder(database: Path) -> str | None:
    """Return "python3 (pid 4711)" for another process that holds a write lock on the database, else None."""
    for suffix in ("-gate", "-shm", ""):
        for lock in locks_on(f"{database}{suffix}"):
            if lock.exclusive and lock.pid > 0 and lock.pid != os.getpid():
                return lock.holder
    return None


def reader_processes(database: Path) -> list[tuple[int, str]]:
    """Return the numbers and names of other processes that hold a read mark of the WAL.

    Bytes 123 to 127 of the -shm file are SQLite's reader locks.

    Source: https://sqlite.org/walformat.html#wal_locks
    """
    marks = (lock for lock in locks_on(f"{database}-shm") if not lock.exclusive and 123 <= lock.first <= 127)
    pids = {lock.pid for lock in marks if lock.pid > 0 and lock.pid != os.getpid()}
    return [(pid, process_name(pid)) for pid in sorted(pids)]


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
