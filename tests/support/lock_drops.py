"""Drop a process's locks on a database as other code in the process may: by closing its files.

POSIX locks belong to the process: closing any descriptor of a file gives up the process's locks on it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def close_with_sqlite3(database: Path) -> None:
    """Open and close the database with Python's own SQLite library."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT count(*) FROM jobs").fetchone()


def close_with_copy(database: Path) -> None:
    """Copy the database's files."""
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(f"{database}{suffix}", database.with_name("copied" + suffix))


def close_with_shm_copy(database: Path) -> None:
    """Copy the shared memory, whose locks order the readers and writers of the WAL."""
    shutil.copy(f"{database}-shm", database.with_name("copied-shm"))


def close_with_read(database: Path) -> None:
    """Read the database and its shared memory."""
    for suffix in ("", "-shm"):
        Path(f"{database}{suffix}").read_bytes()
