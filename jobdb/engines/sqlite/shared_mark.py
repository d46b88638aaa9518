"""The mark, stored in the database itself, that several hosts may have it open.

A marked database keeps a rollback journal everywhere, even on the host to which the folder is local: a WAL there would
be invisible to the others. Called by ``jobdb init --shared`` and ``--no-shared``, and on opening.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from ...filesystem.unsafe_files import refuse_hard_links, refuse_unsafe_companions
from . import open_files
from .error_translation import translate
from .file_kind import FileKind, empty_error, inspect_file, refuse_foreign, unmarked_error
from .lock_holders import open_elsewhere_error
from .placement_check import check_placement
from .temporary_connection import temporary_connection

if TYPE_CHECKING:
    from pathlib import Path

SHARED = "shared"
_BUSY_SEC = 10.0


def is_shared(path: Path) -> bool:
    """Return whether the database has the mark, without changing its journal mode."""
    try:
        # Writable: a read-only connection cannot roll back the hot journal of a writer that was killed.
        with temporary_connection(path, busy_sec=_BUSY_SEC, flags=apsw.SQLITE_OPEN_READWRITE) as connection:
            row = connection.execute("SELECT value FROM settings WHERE name = 'shared'").fetchone()
    except apsw.Error as error:
        raise translate(error, path, _BUSY_SEC) from error
    return row is not None and row[0] == "1"


def set_shared(path: Path, shared: bool, *, busy_sec: float = 5.0) -> None:
    """Set or remove the mark, while nobody has the database open.

    Args:
        path: the database.
        shared: set the mark; the journal becomes DELETE first. Otherwise remove it, with the record of an unsafe
            override; the next opening on a local file system changes to WAL.
        busy_sec: how long to wait until nobody has it open, in seconds.

    Raises:
        UnsafeFileSystem: the folder's locks do not reach all hosts, so it cannot be known who has it open.
        Busy: a process has it open. One that is idle with a rollback journal holds no lock and is not detected; its
            next verb is refused once the database is in WAL mode.
        Unusable: this process has it open.
    """
    from .exclusive_lock import lock_exclusively  # here: every opening imports this module

    check_placement(path)
    with open_files.exclusive_open(path):
        refuse_hard_links(path)
        refuse_unsafe_companions(path)
        _header, found = inspect_file(path)
        refuse_foreign(path, found)
        if found is not FileKind.OURS:
            raise (unmarked_error(path) if found is FileKind.UNMARKED else empty_error(path))
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(round(busy_sec * 1000))
            connection.pragma("synchronous", 3)
            lock_exclusively(connection)
            if shared:
                connection.pragma("journal_mode", "delete")
            connection.execute(
                "INSERT INTO settings (name, value) VALUES ('shared', ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                ("1" if shared else "0",),
            )
            if not shared:
                connection.execute("DELETE FROM settings WHERE name = 'unsafe_override'")
        except apsw.BusyError as error:
            raise open_elsewhere_error(path, busy_sec) from error
        except apsw.Error as error:
            raise translate(error, path, busy_sec) from error
        finally:
            connection.close()
