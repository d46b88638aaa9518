"""Turns what apsw raises into jobdb's errors. One place, so that no verb leaks a driver's exception."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from ...errors import JobdbError, NotAJobdbDatabase, SchemaMismatch, StorageFailed, UnsafeFileSystem
from .locks import busy_error

if TYPE_CHECKING:
    from pathlib import Path


_LEAST_ROOM_BYTES = 64 * 1024
"""A -shm grows by 32 KiB, and so much must be free when it is made."""

_READS = frozenset({apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ})
"""No room is no reason for a failed read."""


def translate(error: apsw.Error, database: Path, waited_sec: float) -> JobdbError:
    """The jobdb error that says what ``error`` means for ``database``."""
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)):
        return _no_lock_manager(database) or busy_error(database, waited_sec)
    if isinstance(error, apsw.FullError):
        return StorageFailed(
            f"the disk that holds {database} is full; nothing was written. Free space there and try again"
        )
    if isinstance(error, apsw.NotADBError):
        return NotAJobdbDatabase(
            f"{database} is no SQLite database; name another file with --db, or move it away and run 'jobdb init'"
        )
    if isinstance(error, apsw.CorruptError):
        return StorageFailed(
            f"{database} is damaged ({error}); stop the writers, keep a copy of the file with its -wal, and run "
            "'jobdb doctor --full', then 'jobdb restore'"
        )
    if isinstance(error, (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError)):
        return StorageFailed(
            f"{database} or its folder cannot be written by this user ({error}); nothing was written. "
            "Check owner and mode of the folder, the database and its -wal and -shm"
        )
    if isinstance(error, apsw.IOError):
        if getattr(error, "extendedresult", 0) not in _READS and _no_room(database):
            return StorageFailed(
                f"the disk that holds {database} is full ({error}); the verb was rolled back. "
                "Free space there and try again"
            )
        return StorageFailed(
            f"the disk failed under {database} ({error}); the verb was rolled back. "
            "Check the room on the disk, the disk itself and the system log"
        )
    if isinstance(error, (apsw.SQLError, apsw.SchemaChangeError)):
        return SchemaMismatch(f"{database} has not the schema of this jobdb ({error}); run 'jobdb doctor'")
    return StorageFailed(f"SQLite refused to work on {database}: {error}")


def _no_room(database: Path) -> bool:
    """Whether the disk has no room for the next file: SQLite reports a -shm that finds none as an I/O error."""
    try:
        found = os.statvfs(database.parent)
    except (AttributeError, OSError):
        return False
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return blocks * found.f_frsize < _LEAST_ROOM_BYTES


def _no_lock_manager(database: Path) -> UnsafeFileSystem | None:
    """SQLite reports ENOLCK, "no locks to be had", as BUSY: on a shared folder the two are told apart by trying."""
    if os.path.exists(f"{database}-shm"):
        return None
    from ...probe import quick_lock_probe

    report = quick_lock_probe(database.parent)
    if report.ok:
        return None
    return UnsafeFileSystem(
        f"{database.parent} gives no locks any more ({report.verdict}); nothing was written. Is the file server's lock "
        f"manager running? 'jobdb probe {database.parent}' tells when it is back"
    )
