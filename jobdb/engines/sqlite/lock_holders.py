"""The processes that hold locks on a database, for the messages of Busy errors and for the doctor.

Called by the gate, the write path, migrations and restore when a lock is not granted, and by the doctor. Reads the
kernel's list of locks; never opens the database or its companions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import Busy
from .lock_bytes import READ_MARKS, WAL_LOCKS

if TYPE_CHECKING:
    from pathlib import Path

    from ...filesystem.kernel_locks import KernelLock


def lock_holder(database: Path) -> str | None:
    """Return "python3 (pid 4711)" for another process that holds a write lock on the database, else None."""
    for suffix in ("-gate", "-shm", ""):
        for lock in _locks_on(f"{database}{suffix}"):
            if lock.exclusive and lock.pid > 0 and lock.pid != os.getpid():
                return lock.holder
    return None


def reader_processes(database: Path) -> list[tuple[int, str]]:
    """Return the ids and names of other processes that hold a read mark of the WAL."""
    marks = (lock for lock in _locks_on(f"{database}-shm") if not lock.exclusive and lock.first in READ_MARKS)
    pids = {lock.pid for lock in marks if lock.pid > 0 and lock.pid != os.getpid()}
    from ...filesystem.kernel_locks import process_name

    return [(pid, process_name(pid)) for pid in sorted(pids)]


def shm_lock_holder(database: Path, *, exclude_pid: int = 0) -> int | None:
    """Return the id of a process that has a WAL database with this name open; None if none is known.

    Args:
        database: the name; the ``-shm`` beside it may be that of a database that was removed.
        exclude_pid: a process that does not count.
    """
    locks = (lock for lock in _locks_on(f"{database}-shm") if lock.kind == "POSIX" and lock.first in WAL_LOCKS)
    return next((lock.pid for lock in locks if lock.pid != exclude_pid), None)


def _locks_on(path: str) -> list[KernelLock]:
    """List the locks on a file; none if no file descriptor is left to read them."""
    try:
        from ...filesystem.kernel_locks import locks_on  # imported here: few commands have to wait
    except (ImportError, OSError):
        return []
    return locks_on(path)


def busy_error(database: Path, waited_sec: float) -> Busy:
    """Return the error for a wait that has reached its limit, with the holder where it is known."""
    holder = lock_holder(database)
    who = f"; {holder} holds it" if holder else ""
    return Busy(
        f"{database} was locked by another writer for {waited_sec:.1f} s{who}. Nothing was written",
        waited_sec=waited_sec,
        holder=holder,
        advice="try again, or open the registry with a longer busy_timeout_sec",
        command="try again, or allow a longer wait with --busy-timeout",
    )


def open_elsewhere_error(database: Path, waited_sec: float) -> Busy:
    """Return the error for an operation that needs exclusive access while another process has the database open."""
    return Busy(
        f"{database} is open in another process; stop the workers, the relay and the subscribers, and try again. "
        "Nothing was changed",
        waited_sec=waited_sec,
    )
