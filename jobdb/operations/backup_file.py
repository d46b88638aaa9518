"""Backup files: copy a SQLite registry into one, read one, and verify one completely.

Called by ``backup`` and ``restore``; may call the SQLite engine's helpers. A backup file is read without being changed,
even on read-only media, and together with the content of its -wal.
Source: https://sqlite.org/backup.html, https://sqlite.org/uri.html
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from jobdb.schema import APPLICATION_ID, SCHEMA_VERSION

from ..engines.sqlite import open_files
from ..engines.sqlite.error_translation import is_read_error, translate
from ..engines.sqlite.header import read_header
from ..engines.sqlite.stale_journals import journal_page_count
from ..engines.sqlite.temporary_connection import immutable_uri, temporary_connection
from ..errors import InvalidInput, JobdbError, NotAJobdbDatabase, SchemaMismatch, StorageFailed
from ..system.identifiers import file_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..urls import DatabaseUrl

    _Translator = Callable[[apsw.Error, Path, Path], JobdbError]

_PAGES_PER_STEP = 2000
_READ_URI = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def sqlite_path(url: DatabaseUrl) -> Path:
    """Return the file of a SQLite registry.

    Raises:
        InvalidInput: the registry is in PostgreSQL.
    """
    if url.path is None:
        raise InvalidInput(
            "backup and restore are for SQLite; save a PostgreSQL registry with pg_dump or its own archiving",
            advice="or copy it into a file with copy_registry()",
            command="or copy it into a file: jobdb copy",
        )
    return url.path


def resolve_backup(path: Path) -> Path:
    """Return a backup's file, with links resolved.

    Raises:
        InvalidInput: it does not exist or is not a file.
    """
    name_a_backup = {
        "advice": "name a file that back_up() created",
        "command": "name a file that 'jobdb backup' created",
    }
    try:
        os.fsencode(path).decode("utf-8")
        found = os.stat(path)
    except (OSError, ValueError) as error:
        link = " (a dangling link)" if os.path.islink(path) else ""
        reason = f": {error.strerror}" if isinstance(error, PermissionError) else f" does not exist{link}"
        raise InvalidInput(f"{path}{reason}", **name_a_backup) from None
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(f"{path} is not a file", **name_a_backup)
    return Path(os.path.realpath(path))


def verify(path: Path, *, named: Path | None = None) -> tuple[int, int]:
    """Open a backup file and verify it completely.

    Args:
        path: the file.
        named: the file to name in errors, if ``path`` is a copy of it.

    Returns:
        The number of jobs and of events in it.

    Raises:
        InvalidInput: it is not a file.
        NotAJobdbDatabase, SchemaMismatch: it is not a jobdb database, or has another schema version.
        StorageFailed: it is damaged.

    Example:
        jobs, events = verify(Path("/backups/jobs.db"))
    """
    path, named = resolve_backup(path), named or path
    try:
        with _open_backup(path, named) as connection:
            problems = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
            broken = connection.execute("PRAGMA foreign_key_check").fetchone()
            jobs = connection.execute("SELECT count(*) FROM jobs").fetchone()
            events = connection.execute("SELECT count(*) FROM events").fetchone()
    except apsw.Error as error:
        raise _backup_error(error, path, named) from error
    if problems != ["ok"] or broken is not None:
        raise StorageFailed(f"{named} is damaged ({problems[0]}); use another backup")
    assert jobs is not None and events is not None
    return int(jobs[0]), int(events[0])


def copy_backup_file(source: Path, target: Path) -> None:
    """Copy a backup file, with the content of its -wal, into an empty file.

    Raises:
        NotAJobdbDatabase, SchemaMismatch: it is not a jobdb database, or has another schema version.
        StorageFailed: it is damaged, or the disk is full or failed.
    """
    try:
        with _open_backup(source, source) as connection:
            _copy(connection, source, target, unreadable=_backup_error)
    except apsw.Error as error:
        raise _backup_error(error, source, source) from error


def copy_open_database(source: Path, target: Path, identity: tuple[int, int]) -> None:
    """Copy a consistent state of a registry that is in use into an empty file.

    Args:
        source: the database.
        target: the empty file.
        identity: the device and inode of the file that the registry has open.

    Raises:
        StorageFailed: the name now belongs to another file, or the disk is full or failed.
    """
    before = os.stat(source)
    try:
        with temporary_connection(source, busy_sec=30.0) as connection:
            if any(file_id(found) != identity for found in (before, os.stat(source))):
                raise StorageFailed(
                    f"{source} was replaced by another file since this registry was opened; nothing was saved. Open "
                    "the registry again"
                )
            _copy(connection, source, target, unreadable=lambda error, path, _named: translate(error, path, 30.0))
    except apsw.Error as error:
        raise translate(error, source, 0.0) from error


def _copy(source: apsw.Connection, path: Path, target: Path, *, unreadable: _Translator) -> None:
    """Copy with SQLite's backup API, in steps, so that writers in rollback-journal mode are not blocked for long."""
    try:
        # One read transaction: the copy is consistent, whatever is written meanwhile.
        source.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error as error:
        raise unreadable(error, path, path) from error
    try:
        copy = open_scratch(target)
        try:
            with copy.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(_PAGES_PER_STEP)
            copy.pragma("journal_mode", "delete")
        finally:
            copy.close()
        source.execute("COMMIT")
    except (apsw.BusyError, apsw.LockedError, apsw.CorruptError, apsw.NotADBError) as error:
        raise unreadable(error, path, path) from error
    except apsw.Error as error:
        raise translate(error, path if is_read_error(error) else target, 0.0) from error


def open_scratch(scratch: Path) -> apsw.Connection:
    """Open a scratch file that no other process uses, without syncing, which its creator does.

    Its path must not contain a link.
    """
    connection = apsw.Connection(str(scratch), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        connection.pragma("synchronous", 0)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _open_backup(path: Path, named: Path) -> Iterator[apsw.Connection]:
    """Open a backup file for reading, as a database that others may be using.

    The exception is a file in WAL mode without a -wal: SQLite could read it that way only by creating a -wal and -shm
    next to it, so it is opened as immutable.
    """
    if journal_page_count(Path(f"{path}-journal")) is not None:
        raise StorageFailed(
            f"{named} is in the middle of a transaction: the -journal next to it is not rolled back",
            advice="open it once as a registry, which rolls it back, and try again",
            command=f"run 'jobdb --db {named} doctor', which rolls it back, and try again",
        )
    foreign = NotAJobdbDatabase(f"{named} is not a backup of a jobdb database")
    try:
        with open_files.raw_read(path) as free:
            in_wal = free and read_header(path).wal
    except NotAJobdbDatabase:
        raise foreign from None
    in_use = any(os.path.lexists(f"{path}{suffix}") for suffix in ("-wal", "-shm"))
    name = immutable_uri(path) if in_wal and not in_use else str(path)
    with temporary_connection(path, busy_sec=5.0, name=name, flags=_READ_URI) as connection:
        version = connection.pragma("user_version")
        assert isinstance(version, int)
        if connection.pragma("application_id") != APPLICATION_ID:
            raise foreign
        if version < 1:
            raise StorageFailed(f"{named} is damaged (schema version {version}); use another backup")
        if version > SCHEMA_VERSION:
            raise SchemaMismatch(f"{named} has schema version {version}; this jobdb knows {SCHEMA_VERSION}")
        yield connection


def _backup_error(error: apsw.Error, path: Path, named: Path) -> JobdbError:
    """Return the error for a backup file: if damaged, advise using another backup rather than checking a -wal."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StorageFailed(f"{named} is damaged ({error}); use another backup")
    return translate(error, path, 0.0)
