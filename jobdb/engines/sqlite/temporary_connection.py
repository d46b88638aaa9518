"""Temporary connections: opened to read from a database file, and registered as open meanwhile.

Called by backup and restore, and by checks that examine a file without opening a store. Changes nothing, unless the
caller's flags permit it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw

from . import open_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def immutable_uri(path: Path) -> str:
    """Return the URI by which SQLite reads a file that nobody writes to, without looking for journals."""
    return f"file:{quote(os.fspath(path.absolute()))}?immutable=1"


@contextmanager
def temporary_connection(
    path: Path, *, busy_sec: float, name: str | None = None, flags: int = apsw.SQLITE_OPEN_READONLY
) -> Iterator[apsw.Connection]:
    """Open a database file for the duration of a block.

    Meanwhile the file counts as open in this process, so nothing opens it with another SQLite library. Functions that
    its schema calls are not run unless they are part of SQLite.

    Args:
        path: the file; it exists.
        busy_sec: how long to wait for a lock, in seconds.
        name: a URI to open instead of the path.
        flags: SQLite's flags for opening.

    Raises:
        apsw.Error: it cannot be opened.
        ForkedRegistry: this process must not open it.
        OSError: it does not exist.
    """
    file = open_files.register(path)
    try:
        connection = apsw.Connection(str(path) if name is None else name, flags=flags)
        try:
            connection.set_busy_timeout(round(busy_sec * 1000))
            connection.pragma("trusted_schema", 0)
            yield connection
        finally:
            connection.close()
    finally:
        open_files.unregister(file)
