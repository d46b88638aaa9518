"""The kind of a SQLite file: empty, a registry, a registry that lost its mark, or another program's data.

Called by open, migrate, restore, ``init --shared`` and the doctor: one rule for all. Reads the file, changes nothing.
The mark is the header's ``application_id``. Most programs set none, so a missing mark proves nothing: a mistyped
``--db`` must not add our tables to another program's database. And ``sqlite3 old.db .dump | sqlite3 new.db`` drops mark
and version. So the content decides.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import apsw

from jobdb.schema import APPLICATION_ID, migration_files

from ...errors import NotAJobdbDatabase, SchemaMismatch
from .error_translation import translate
from .header import Header, read_header

if TYPE_CHECKING:
    from pathlib import Path

_CREATE_STATEMENT = (
    r"(?im)^CREATE (?:TABLE|VIEW)\s+(?:IF NOT EXISTS\s+)?\"?(\w+)"  # compiled when needed: that takes time
)
_MIGRATIONS_TABLE = "_sqlite_migrations"
_BUSY_SEC = 10.0


class FileKind(Enum):
    """The kinds of database files."""

    EMPTY = "empty"
    OURS = "a registry"
    UNMARKED = "a registry without its mark"
    FOREIGN = "another program's"


def inspect_file(path: Path) -> tuple[Header, FileKind]:
    """Return a file's header and kind; open it with SQLite only if the header does not suffice.

    Args:
        path: the file, which this process does not have open.

    Returns:
        The header, with mark and version as SQLite sees them where they may be newer in the WAL than in the file; and
        the kind.

    Raises:
        NotAJobdbDatabase, StorageFailed: it cannot be read as a database.
    """
    header = read_header(path)
    if header.empty:
        return header, FileKind.EMPTY
    if header.application_id != 0:
        return header, FileKind.OURS if header.application_id == APPLICATION_ID else FileKind.FOREIGN
    info = read_schema_info(path)
    return header._replace(application_id=info.application_id, user_version=info.version), _classify(info)


def connection_file_kind(connection: apsw.Connection) -> FileKind:
    """Return the kind of an open database, by the same rule.

    Raises:
        apsw.Error: it cannot be read.
    """
    return _classify(_schema_info(connection))


def _classify(info: SchemaInfo) -> FileKind:
    if info.application_id != 0:  # set since, or still in the WAL
        return FileKind.OURS if info.application_id == APPLICATION_ID else FileKind.FOREIGN
    if not info.names:
        return FileKind.EMPTY if info.version == 0 else FileKind.FOREIGN
    return FileKind.UNMARKED if info.migrated and info.names <= _our_table_names() else FileKind.FOREIGN


def refuse_foreign(path: Path, found: FileKind) -> None:
    """Refuse a file of another program, which no command may touch.

    Raises:
        NotAJobdbDatabase: it is another program's.
    """
    if found is FileKind.FOREIGN:
        raise NotAJobdbDatabase(
            f"{path} is a SQLite database of another program; nothing was changed",
            advice="name another file",
            command="name another file with --db",
        )


def unmarked_error(path: Path) -> SchemaMismatch:
    """Return the error for a registry without its mark."""
    return SchemaMismatch(
        f"{path} holds a registry whose mark is missing, as after '.dump' into a new file; "
        f"run 'jobdb --db {path} migrate', which restores it"
    )


def empty_error(path: Path) -> SchemaMismatch:
    """Return the error for an empty file in which no registry is to be created."""
    return SchemaMismatch(
        f"{path} is empty", advice="open it with create=True", command=f"run 'jobdb --db {path} init'"
    )


def _our_table_names() -> set[str]:
    """Return every table and view that a migration creates."""
    scripts = [file.read_text("utf-8") for _number, _name, file in migration_files("sqlite")]
    return {_MIGRATIONS_TABLE, *(name for script in scripts for name in re.findall(_CREATE_STATEMENT, script))}


class SchemaInfo(NamedTuple):
    """The schema of a file, as SQLite sees it.

    Attributes:
        application_id: the application id.
        version: the user version.
        names: the names of all tables and views.
        migrated: whether our migrations ran there.
    """

    application_id: int
    version: int
    names: set[str]
    migrated: bool


def read_schema_info(path: Path) -> SchemaInfo:
    """Open a file with SQLite and return its schema, the WAL included.

    Raises:
        NotAJobdbDatabase, StorageFailed, Busy: it cannot be read as a database.
    """
    try:
        if os.path.exists(f"{path}-wal") or os.path.exists(f"{path}-journal"):
            return _read_schema_info(path, apsw.SQLITE_OPEN_READONLY)
        # There is no journal, so none is created: in WAL mode even a reader would create files.
        from .temporary_connection import immutable_uri

        return _read_schema_info(path, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, name=immutable_uri(path))
    except apsw.ReadOnlyError:
        # The journal of a writer that was killed must be rolled back.
        return _read_schema_info(path, apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise translate(error, path, _BUSY_SEC) from error


def _read_schema_info(path: Path, flags: int, *, name: str | None = None) -> SchemaInfo:
    from .temporary_connection import temporary_connection

    with temporary_connection(path, busy_sec=_BUSY_SEC, name=name, flags=flags) as connection:
        connection.execute("BEGIN")
        return _schema_info(connection)


def _schema_info(connection: apsw.Connection) -> SchemaInfo:
    names = {str(row[0]) for row in connection.execute(_TABLE_NAMES).fetchall()}
    application_id, version = connection.pragma("application_id"), connection.pragma("user_version")
    return SchemaInfo(
        int(str(application_id)),
        int(str(version)),
        names,
        _MIGRATIONS_TABLE in names and _ran_our_migrations(connection),
    )


_TABLE_NAMES = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'"
_FIRST_MIGRATION = "SELECT 1 FROM _sqlite_migrations WHERE migration_set = 'jobdb' AND name = '0001_initial'"


def _ran_our_migrations(connection: apsw.Connection) -> bool:
    try:
        return connection.execute(_FIRST_MIGRATION).fetchone() is not None
    except apsw.SQLError:
        return False  # another program's table of that name
