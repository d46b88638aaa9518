"""What a SQLite database without jobdb's mark holds: nothing, a registry that lost its mark, or another program's data.

The mark is the header's ``application_id``. Most programs set none, so its absence says nothing: a mistyped ``--db``
must not put our tables beside somebody's orders. And ``sqlite3 old.db .dump | sqlite3 new.db`` leaves mark and version
behind. So what is in it decides, by one rule for every command.
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
from .temporary_connection import immutable_uri, temporary_connection

if TYPE_CHECKING:
    from pathlib import Path

_CREATE_STATEMENT = re.compile(r"^CREATE (?:TABLE|VIEW)\s+(?:IF NOT EXISTS\s+)?\"?(\w+)", re.MULTILINE | re.IGNORECASE)
_MIGRATIONS_TABLE = "_sqlite_migrations"
_BUSY_SEC = 10.0


class Contents(Enum):
    """What is in a database file."""

    EMPTY = "empty"
    OURS = "a registry"
    UNMARKED = "a registry without its mark"
    FOREIGN = "another program's"


def inspect_file(path: Path) -> tuple[Header, Contents]:
    """Read a file's header and tell what the file holds; SQLite opens it only when the header does not say.

    Args:
        path: the file, which this process has not open.

    Returns:
        The header, with mark and version as SQLite sees them where they may be newer in the log than in the file; and
        what the file holds.

    Raises:
        NotAJobdbDatabase, StorageFailed: it cannot be read as a database.
    """
    header = read_header(path)
    if header.empty:
        return header, Contents.EMPTY
    if header.application_id != 0:
        return header, Contents.OURS if header.application_id == APPLICATION_ID else Contents.FOREIGN
    info = read_schema_info(path)
    return header._replace(application_id=info.application_id, user_version=info.version), _classify(info)


def connection_contents(connection: apsw.Connection) -> Contents:
    """Tell what an open database holds, by the same rule.

    Raises:
        apsw.Error: it cannot be read.
    """
    return _classify(_schema_info(connection))


def _classify(info: SchemaInfo) -> Contents:
    if info.application_id != 0:  # set since, or still in the log
        return Contents.OURS if info.application_id == APPLICATION_ID else Contents.FOREIGN
    if not info.names:
        return Contents.EMPTY if info.version == 0 else Contents.FOREIGN
    return Contents.UNMARKED if info.migrated and info.names <= _our_table_names() else Contents.FOREIGN


def refuse_foreign(path: Path, found: Contents) -> None:
    """Refuse what no command may touch.

    Raises:
        NotAJobdbDatabase: it is another program's.
    """
    if found is Contents.FOREIGN:
        raise NotAJobdbDatabase(
            f"{path} is a SQLite database of another program; nothing was changed. Name another file with --db"
        )


def unmarked_error(path: Path) -> SchemaMismatch:
    """Return the error for a registry without its mark."""
    return SchemaMismatch(
        f"{path} holds a registry whose mark is missing, as after '.dump' into a new file; "
        f"run 'jobdb --db {path} migrate', which puts it back"
    )


def _our_table_names() -> set[str]:
    """Return every table and view that a migration makes."""
    scripts = [file.read_text("utf-8") for _number, _name, file in migration_files("sqlite")]
    return {_MIGRATIONS_TABLE, *(name for script in scripts for name in _CREATE_STATEMENT.findall(script))}


class SchemaInfo(NamedTuple):
    """What SQLite sees in a file.

    Attributes:
        application_id: the application id.
        version: the user version.
        names: of all tables and views.
        migrated: whether our migrations ran there.
    """

    application_id: int
    version: int
    names: set[str]
    migrated: bool


def read_schema_info(path: Path) -> SchemaInfo:
    """Open a file with SQLite and return what is in it, the log included.

    Raises:
        NotAJobdbDatabase, StorageFailed, Busy: it cannot be read as a database.
    """
    try:
        if os.path.exists(f"{path}-wal") or os.path.exists(f"{path}-journal"):
            return _read_schema_info(path, apsw.SQLITE_OPEN_READONLY)
        # Nothing to take into account, so nothing is left beside it: in WAL even a reader makes files.
        return _read_schema_info(path, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, name=immutable_uri(path))
    except apsw.ReadOnlyError:
        # The journal of a writer that was killed is to be rolled back.
        return _read_schema_info(path, apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise translate(error, path, _BUSY_SEC) from error


def _read_schema_info(path: Path, flags: int, *, name: str | None = None) -> SchemaInfo:
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
