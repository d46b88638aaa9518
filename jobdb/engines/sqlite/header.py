"""The first hundred bytes of a database file, read before any connection is open.

Opening a WAL database on a network folder, only to find out that it is one, would already do harm. The file is read
by hand only while this process has no connection to it. Source: https://sqlite.org/fileformat2.html#the_database_header
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ...errors import NotAJobdbDatabase, StorageFailed

if TYPE_CHECKING:
    from pathlib import Path

_TYPES_BY_MAGIC = b"SQLite format 3\0"
_WAL_VERSION = 2


class Header(NamedTuple):
    """What the header says. All zero for an empty file."""

    empty: bool
    wal: bool
    user_version: int
    application_id: int


def read_header(path: Path) -> Header:
    """Reads the header of a database that this process has not open.

    Raises:
        NotAJobdbDatabase: it is a folder or no SQLite database.
        StorageFailed: it cannot be read.
    """
    if path.is_dir():
        raise NotAJobdbDatabase(f"{path} is a folder; name a file in it, such as {path / 'jobs.db'}")
    if path.exists() and not path.is_file():
        raise NotAJobdbDatabase(f"{path} is no file but a pipe, a socket or a device; name a file with --db")
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror}; check its owner and mode") from error
    if not head:
        return Header(True, False, 0, 0)
    if len(head) < 100 or not head.startswith(_TYPES_BY_MAGIC):
        raise NotAJobdbDatabase(
            f"{path} is not a SQLite database; name another file with --db, or move it away and run 'jobdb init'"
        )
    user_version, _incremental_vacuum, application_id = struct.unpack(">III", head[60:72])
    return Header(False, head[18] == _WAL_VERSION, user_version, application_id)
