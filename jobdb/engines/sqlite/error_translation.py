"""Translation of apsw's exceptions into jobdb's errors, in one place, so that no verb leaks a driver's exception.

Called by everything in this package that runs SQLite. It may examine the file, its locks and its disk, to distinguish
causes that SQLite reports with one code.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

import apsw

from ...errors import JobdbError, NotAJobdbDatabase, SchemaMismatch, StorageFailed, UnsafeFileSystem
from ...system.descriptor_shortage import SHORTAGE_ADVICE, is_shortage
from .lock_holders import busy_error, shm_lock_holder

if TYPE_CHECKING:
    from pathlib import Path


_MIN_FREE_BYTES = 64 * 1024
"""A -shm grows by 32 KiB, and SQLite needs as much space when it creates one."""

_READ_ERRORS = frozenset(
    {
        apsw.SQLITE_IOERR_READ,
        apsw.SQLITE_IOERR_SHORT_READ,
        apsw.SQLITE_IOERR_CORRUPTFS,
        apsw.SQLITE_IOERR_DATA,
        apsw.SQLITE_IOERR_IN_PAGE,
        apsw.SQLITE_IOERR_FSTAT,
        apsw.SQLITE_IOERR_ACCESS,
    }
)
"""Errors of reads, which a full disk does not explain."""

_LOCK_ERRORS = frozenset(
    {
        apsw.SQLITE_IOERR_LOCK,
        apsw.SQLITE_IOERR_UNLOCK,
        apsw.SQLITE_IOERR_RDLOCK,
        apsw.SQLITE_IOERR_CHECKRESERVEDLOCK,
        apsw.SQLITE_IOERR_SHMLOCK,
    }
)
_NEEDED_DESCRIPTORS = 10
"""About as many are open per database."""
_CHECK_SEC = 2.0
"""The time limit for the check whether a database is damaged, or was only temporarily unreadable."""


def translate(error: apsw.Error, database: Path, waited_sec: float) -> JobdbError:
    """Return the jobdb error for an error of SQLite.

    Args:
        error: the exception of apsw.
        database: the database file.
        waited_sec: how long the call had waited for a lock, in seconds.
    """
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)):
        return _lock_service_error(database) or busy_error(database, waited_sec)
    if isinstance(error, apsw.FullError):
        return StorageFailed(
            f"the disk that holds {database} is full; nothing was written. Free space there and try again"
        )
    if isinstance(error, apsw.NotADBError):
        return NotAJobdbDatabase(
            f"{database} is not a SQLite database",
            advice="name another file, or move it away and create a registry",
            command="name another file with --db, or move it away and run 'jobdb init'",
        )
    if isinstance(error, apsw.CorruptError):
        return _corrupt_or_unreadable(database, error)
    if isinstance(error, (apsw.NoMemError, MemoryError)) or _code(error) == apsw.SQLITE_IOERR_NOMEM:
        return StorageFailed(
            f"there was not enough memory for a verb on {database}; it was rolled back. Free memory, or pass less at a "
            "time, and try again"
        )
    if isinstance(error, (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError, apsw.AuthError)):
        return _open_failed(database, error)
    if isinstance(error, (apsw.IOError, apsw.NoLFSError)):
        return _disk_failed(database, error)
    if isinstance(error, (apsw.SQLError, apsw.SchemaChangeError)):
        return SchemaMismatch(f"{database} does not have the schema of this jobdb ({error}); run 'jobdb doctor'")
    return StorageFailed(f"SQLite refused to work on {database}: {error}")


def _code(error: apsw.Error) -> int:
    return int(getattr(error, "extendedresult", 0))


def _open_failed(database: Path, error: apsw.Error) -> StorageFailed:
    if _code(error) == apsw.SQLITE_READONLY_DBMOVED:
        return StorageFailed(
            f"{database} was moved, removed or replaced while it was open; nothing was written",
            advice="open a new registry",
            command="run the command again",
        )
    if (why := _descriptor_shortage()) is not None:
        return StorageFailed(f"a file of {database} cannot be opened: {why}; nothing was written. {SHORTAGE_ADVICE}")
    return StorageFailed(
        f"{database} or its folder cannot be written by this user ({error}); nothing was written. "
        "Check owner and mode of the folder, of the database and of its -wal and -shm"
    )


def _disk_failed(database: Path, error: apsw.Error) -> StorageFailed:
    code = _code(error)
    if code in _READ_ERRORS:
        return _read_failed(database, error)
    if code in _LOCK_ERRORS:
        return StorageFailed(
            f"the file system granted no lock on {database} ({error}); the verb was rolled back. Check the mount and, "
            f"on a shared folder, the server: 'jobdb probe {database.parent}'"
        )
    if disk_is_full(database):
        return StorageFailed(
            f"the disk that holds {database} is full ({error}); the verb was rolled back. "
            "Free space there and try again"
        )
    if (limit := _file_size_limit()) is not None:
        return StorageFailed(
            f"{database} cannot be written ({error}), and this process may write no file larger than {limit} bytes; "
            "the verb was rolled back. Raise the limit (ulimit -f), or check the disk and the system log"
        )
    return StorageFailed(
        f"the disk failed under {database} ({error}); the verb was rolled back. "
        "Check the free space, the disk itself and the system log"
    )


def is_read_error(error: apsw.Error) -> bool:
    """Return whether an error came from reading a file, and not from writing another."""
    return _code(error) in _READ_ERRORS


def _read_failed(database: Path, error: apsw.Error) -> StorageFailed:
    return _wal_removed(database) or StorageFailed(
        f"{database} could not be read ({error}); the verb was rolled back and the file is as it was. Check the mount, "
        "the disk and the system log, and try again when they are in order"
    )


def _wal_removed(database: Path) -> StorageFailed | None:
    """Return the error for a database whose WAL was removed or emptied while a process has it open, else None.

    The ``-shm`` still tells which pages are to be read from the WAL.
    """
    holder = shm_lock_holder(database, exclude_pid=os.getpid())
    try:
        if holder is None or os.stat(f"{database}-wal").st_size > 0:
            return None
    except FileNotFoundError:
        pass
    except OSError:
        return None
    return StorageFailed(
        f"{database} cannot be read: its log {database}-wal was removed or emptied while process {holder} had it open, "
        "and what was not yet copied from it into the database is nowhere else. If the log was removed, that process "
        f"still has it open: find it with 'ls -l /proc/{holder}/fd' and copy it before you stop the process. Then stop "
        f"whatever has the database open, remove {database}-shm, and put the copy in the log's place"
    )


def _corrupt_or_unreadable(database: Path, error: apsw.Error) -> StorageFailed:
    """Return the error for a database that is damaged, or for one that could not be read.

    SQLite also reports a database as corrupt if the disk returned an error for a read (SQLITE_IOERR_CORRUPTFS). So the
    file is read once more, through SQLite, for a limited time.
    """
    from .temporary_connection import temporary_connection

    try:
        with temporary_connection(database, busy_sec=_CHECK_SEC) as connection:
            connection.read("main", 0, 0, 4096)
            deadline = time.monotonic() + _CHECK_SEC
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            if connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",):
                return _read_failed(database, error)
    except (apsw.IOError, OSError) as failure:
        return _read_failed(database, failure if isinstance(failure, apsw.Error) else error)
    except (apsw.Error, JobdbError):
        pass  # it is damaged, or too large to tell in time
    return StorageFailed(
        f"{database} is damaged, or its disk cannot be read ({error}); stop the writers, keep a copy of the file with "
        "its -wal, and run 'jobdb doctor --full' when the disk is in order: only if that finds damage, 'jobdb restore'"
    )


def _descriptor_shortage() -> str | None:
    """Return the reason why this process cannot open the files that a database needs; None if it can."""
    opened: list[int] = []
    try:
        for _ in range(_NEEDED_DESCRIPTORS):  # those of a failed opening are closed by now
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ENOMEM or is_shortage(error):
            return error.strerror
    finally:
        for fd in opened:
            os.close(fd)
    return None


def _file_size_limit() -> int | None:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit


def disk_is_full(database: Path) -> bool:
    """Return whether the disk is full: SQLite reports a lack of space for a -shm as an I/O error."""
    try:
        found = os.statvfs(database.parent)
    except (AttributeError, OSError):
        return False
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return blocks * found.f_frsize < _MIN_FREE_BYTES


def _lock_service_error(database: Path) -> UnsafeFileSystem | None:
    """Return the error for a shared folder that no longer grants locks, else None.

    SQLite reports ENOLCK, "no locks available", as BUSY: trying a lock tells the two apart.
    """
    if os.path.exists(f"{database}-shm"):
        return None
    from ...filesystem.probe.safe_folder import quick_lock_probe

    report = quick_lock_probe(database.parent)
    if report.ok:
        return None
    return UnsafeFileSystem(
        f"{database.parent} no longer grants locks ({report.verdict}); nothing was written. Check that the "
        f"file server's lock manager runs; 'jobdb probe {database.parent}' shows whether it does"
    )
