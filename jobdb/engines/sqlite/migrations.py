"""The migrations of a SQLite database: they create its tables, or migrate older ones to the current schema.

Called by ``jobdb init``, ``jobdb migrate`` and ``Registry.open(create=True)``. They run through sqlite-utils'
Migrations on the standard library's sqlite3, so never while this process has a connection of apsw open, and always with
the file locked exclusively.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import time
from pathlib import Path

from jobdb.schema import APPLICATION_ID, SCHEMA_VERSION

from ...errors import Busy, NotAJobdbDatabase, StorageFailed
from ...filesystem.file_names import take_first_free
from ...filesystem.folder_sync import sync_folder
from ...filesystem.permissions import copy_owner
from ...filesystem.scratch_file import ScratchFile
from ...filesystem.unsafe_files import refuse_hard_links, refuse_unsafe_companions
from ..place import PLACE, file_place
from . import open_files
from .error_translation import disk_is_full
from .exclusive_lock import lock_exclusively
from .file_kind import FileKind, inspect_file, refuse_foreign
from .header import read_header, refuse_newer
from .lock_holders import open_elsewhere_error
from .stale_journals import free_names, nonempty_journals, set_aside_stale


def migrate(path: Path, *, backup: bool = True, busy_sec: float = 10.0) -> Path | None:
    """Migrate the database to the current schema; all steps or none.

    Args:
        path: the database file, which may be empty.
        backup: keep a copy of a database that already has a schema.
        busy_sec: how long to wait until no other process has it open, in seconds.

    Returns:
        The backup's path; None if there was nothing to back up or to do.

    Raises:
        SchemaMismatch: the schema is newer than this jobdb.
        NotAJobdbDatabase: the file is something else.
        Busy: another process has it open.
        StorageFailed: the disk is full or failed; the database is unchanged.
        Unusable: this process has it open, or it has a second name.
    """
    path = path.resolve()  # SQLite keeps the journal beside the target of a link, and we the backup
    with open_files.exclusive_open(path):
        header = read_header(path)
        refuse_hard_links(path)
        refuse_unsafe_companions(path)
        if header.empty:
            set_aside_stale(path, busy_sec)
        header, found = inspect_file(path)
        refuse_foreign(path, found)
        refuse_newer(path, header)
        if header.user_version == SCHEMA_VERSION and found is FileKind.OURS:
            return None
        try:
            return _migrate_exclusive(path, busy_sec, keep=backup and found is not FileKind.EMPTY)
        except sqlite3.OperationalError as error:
            raise _translate(error, path, busy_sec) from error
        except sqlite3.DatabaseError as error:
            raise NotAJobdbDatabase(f"{path} cannot be migrated: {error}; run 'jobdb doctor --full'") from error


def remove_unfinished(path: Path) -> bool:
    """Remove the file of a database that could not be created, if it is still empty and nobody else uses it.

    This happens under the file's lock: another process may be creating the database in the same file.

    Returns:
        True if it was removed.
    """
    with contextlib.suppress(OSError, sqlite3.Error), open_files.exclusive_open(path):
        if nonempty_journals(path):
            return False  # SQLite would delete them
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            # Do not go by its size: a transaction that was rolled back can leave an empty page.
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables and connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                os.unlink(path)
                return True
        finally:
            connection.close()
    return False


def _connect_exclusive(path: Path, busy_sec: float) -> sqlite3.Connection:
    """Return a connection that has the file locked exclusively until it is closed; see `exclusive_lock`.

    In this locking mode SQLite keeps the locks it has while it waits for more, so two processes would wait for each
    other. So a process that does not get the lock immediately releases everything and retries after a random pause.
    """
    deadline = time.monotonic() + busy_sec
    while True:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            lock_exclusively(connection)
            return connection
        except BaseException as error:
            connection.close()
            if _primary_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.002, 0.02))


def _migrate_exclusive(path: Path, busy_sec: float, *, keep: bool) -> Path | None:
    """Migrate on a connection that has the file locked exclusively, and close it in any case.

    It is closed twice, because an exception can interrupt the first close. The garbage collector would close it late,
    since sqlite-utils creates reference cycles, and nobody could open the file until then.
    """
    connection = _connect_exclusive(path, busy_sec)
    try:
        try:
            return _migrate(connection, path, keep=keep)
        finally:
            connection.close()
    finally:
        connection.close()


def _migrate(connection: sqlite3.Connection, path: Path, *, keep: bool) -> Path | None:
    from sqlite_utils import Database

    from jobdb.schema.migrations import MIGRATIONS

    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # The lock is kept between transactions. Inside a transaction of its own the backup would wait forever.
    kept = _back_up(connection, path) if keep else None
    connection.execute("BEGIN EXCLUSIVE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
            MIGRATIONS.apply(Database(connection, execute_plugins=False))  # no plugin may change our schema
            # In a registry that lost its mark, some or all of the steps have already run.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(
                "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
                (PLACE, json.dumps(file_place(path))),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return kept


def _back_up(connection: sqlite3.Connection, path: Path) -> Path:
    """Make a complete, synced copy beside the database, named after its schema version and the current time."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    with ScratchFile(path, "copying") as scratch:
        copy = sqlite3.connect(scratch.path)
        try:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
        copy_owner(scratch.descriptor, os.stat(path), mode=True)
        scratch.sync()
        kept = take_first_free(free_names(path, f"v{version}", ".bak"), scratch.publish_as)
        sync_folder(kept.parent)
    return kept


def _primary_code(error: BaseException) -> int:
    """Return SQLite's primary result code; 0 where the error has none, as those that the module itself raises."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _translate(error: sqlite3.OperationalError, path: Path, busy_sec: float) -> Busy | StorageFailed:
    code = _primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return open_elsewhere_error(path, busy_sec)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and disk_is_full(path)):
        return StorageFailed(f"the disk that holds {path} is full; nothing was changed. Free space there and try again")
    return StorageFailed(f"cannot migrate {path}: {error}; it is unchanged. Check owner, mode and disk")
