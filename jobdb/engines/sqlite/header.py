"""The header of a database file, its first hundred bytes, read before any connection is open.

Called by open, the migrations, backup, restore, the doctor and the web view. Reads the file; never calls SQLite, never
writes.

Opening a WAL database on a network folder, only to find out that it is in WAL mode, would already do harm. The file is
read directly only while this process has no connection to it. Source:
https://sqlite.org/fileformat2.html#the_database_header
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from jobdb.schema import SCHEMA_VERSION

from ...errors import NotAJobdbDatabase, SchemaMismatch, StorageFailed

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"SQLite format 3\0"
_WAL_VERSION = 2


class Header(NamedTuple):
    """The fields of a header; all zero for an empty file."""

    empty: bool
    wal: bool
    user_version: int
    application_id: int


def read_header(path: Path) -> Header:
    """Read the header of a database that this process does not have open.

    Raises:
        NotAJobdbDatabase: it is a folder, or not a SQLite database.
        StorageFailed: it cannot be read.
    """
    if path.is_dir():
        raise NotAJobdbDatabase(f"{path} is a folder; name a file in it, such as {path / 'jobs.db'}")
    if path.exists() and not path.is_file():
        raise NotAJobdbDatabase(f"{path} is a pipe, a socket or a device; name a file")
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror}; check its owner and mode") from error
    if not head:
        return Header(empty=True, wal=False, user_version=0, application_id=0)
    if len(head) < 100 or not head.startswith(_MAGIC):
        raise NotAJobdbDatabase(
            f"{path} is not a SQLite database",
            advice="name another file, or move it away and create a registry",
            command="name another file with --db, or move it away and run 'jobdb init'",
        )
    user_version, _incremental_vacuum, application_id = struct.unpack(">III", head[60:72])
    return Header(empty=False, wal=head[18] == _WAL_VERSION, user_version=user_version, application_id=application_id)


def refuse_newer(path: Path, header: Header) -> None:
    """Refuse a database that a newer jobdb has migrated.

    Raises:
        SchemaMismatch: its schema version is higher than the one that this jobdb knows.
    """
    if header.user_version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} has schema version {header.user_version} and this jobdb knows {SCHEMA_VERSION}; "
            "a newer jobdb has migrated it: pip install --upgrade jobdb"
        )
