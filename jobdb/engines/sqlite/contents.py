"""What a SQLite database without jobdb's mark holds: nothing, a registry that lost its mark, or another program's data.

The mark is the header's ``application_id``. Most programs set none, so its absence says nothing: a mistyped ``--db``
must not put our tables beside somebody's orders. And ``sqlite3 old.db .dump | sqlite3 new.db`` leaves mark and version
behind. So what is in it decides, by one rule for every command.
"""

from __future__ import annotations

import os
import re
from enum import Enum
from typing import TYPE_CHECKING

import apsw

from jobdb.schema import APPLICATION_ID, migration_files

from ...errors import NotAJobdbDatabase, SchemaMismatch
from . import opened
from .failures import translate

if TYPE_CHECKING:
    from pathlib import Path

    from .header import Header

_MADE = re.compile(r"^CREATE (?:TABLE|VIEW)\s+(?:IF NOT EXISTS\s+)?\"?(\w+)", re.MULTILINE | re.IGNORECASE)
_STEPS = "_sqlite_migrations"


class Contents(Enum):
    """What is in a database file."""

    EMPTY = "empty"
    OURS = "a registry"
    UNMARKED = "a registry without its mark"
    FOREIGN = "another program's"


def contents(path: Path, header: Header) -> Contents:
    """Tell what a file holds; it is opened only when its header does not say.

    Args:
        path: the file, which this process has not open.
        header: its header.

    Raises:
        NotAJobdbDatabase, StorageFailed: it cannot be read as a database.
    """
    if header.empty:
        return Contents.EMPTY
    if header.application_id != 0:
        return Contents.OURS if header.application_id == APPLICATION_ID else Contents.FOREIGN
    mark, names, steps = look_into(path)
    return _decide(mark, header.user_version, names, steps)


def contents_seen(connection: apsw.Connection) -> Contents:
    """Tell what an open database holds, by the same rule.

    Raises:
        apsw.Error: it cannot be read.
    """
    mark, names, steps = _seen(connection)
    return _decide(mark, int(str(connection.pragma("user_version"))), names, steps)


def _decide(mark: int, version: int, names: set[str], steps: bool) -> Contents:
    if mark != 0:  # set meanwhile, or still in the log
        return Contents.OURS if mark == APPLICATION_ID else Contents.FOREIGN
    if not names:
        return Contents.EMPTY if version == 0 else Contents.FOREIGN
    return Contents.UNMARKED if steps and names <= _our_names() else Contents.FOREIGN


def refuse_foreign(path: Path, found: Contents) -> None:
    """Refuse what no command may touch.

    Raises:
        NotAJobdbDatabase: it is another program's.
    """
    if found is Contents.FOREIGN:
        raise NotAJobdbDatabase(
            f"{path} is a SQLite database of another program; nothing was changed. Name another file with --db"
        )


def unmarked(path: Path) -> SchemaMismatch:
    """The error for a registry without its mark."""
    return SchemaMismatch(
        f"{path} holds a registry whose mark is missing, as after '.dump' into a new file; "
        f"run 'jobdb --db {path} migrate', which puts it back"
    )


def _our_names() -> set[str]:
    """Every table and view that a migration makes."""
    scripts = [file.read_text("utf-8") for _number, _name, file in migration_files("sqlite")]
    return {_STEPS, *(name for script in scripts for name in _MADE.findall(script))}


def look_into(path: Path) -> tuple[int, set[str], bool]:
    """Return the mark as SQLite sees it, the names of all tables and views, and whether our migrations ran there."""
    identity = opened.add(path)
    try:
        if os.path.exists(f"{path}-wal") or os.path.exists(f"{path}-journal"):
            return _look(str(path), apsw.SQLITE_OPEN_READONLY)
        # Nothing to take into account, so nothing is left beside it: in WAL even a reader makes files.
        return _look(f"{path.absolute().as_uri()}?immutable=1", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    except apsw.ReadOnlyError:
        return _look(
            str(path), apsw.SQLITE_OPEN_READWRITE
        )  # the journal of a writer that was killed is to be rolled back
    except apsw.Error as error:
        raise translate(error, path, 10.0) from error
    finally:
        opened.remove(identity)


def _look(name: str, flags: int) -> tuple[int, set[str], bool]:
    connection = apsw.Connection(name, flags=flags)
    try:
        connection.set_busy_timeout(10_000)
        connection.pragma("trusted_schema", 0)
        connection.execute("BEGIN")
        return _seen(connection)
    finally:
        connection.close()


def _seen(connection: apsw.Connection) -> tuple[int, set[str], bool]:
    rows = connection.execute(_NAMES).fetchall()
    mark = connection.pragma("application_id")
    names = {str(row[0]) for row in rows}
    return int(str(mark)), names, _STEPS in names and _our_steps(connection)


_NAMES = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'"
_FIRST = "SELECT 1 FROM _sqlite_migrations WHERE migration_set = 'jobdb' AND name = '0001_initial'"


def _our_steps(connection: apsw.Connection) -> bool:
    try:
        return connection.execute(_FIRST).fetchone() is not None
    except apsw.SQLError:
        return False  # another program's table of that name
