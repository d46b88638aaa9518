"""SQLite databases of older schema versions, as an older jobdb left them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from jobdb.schema import migration_files
from jobdb.schema.migrations import MIGRATIONS
from sqlite_utils import Database


def create_at_version(path: Path, version: int, *, statements: Iterable[str] = ()) -> None:
    """Create a private database file with the first ``version`` migrations, then run ``statements`` in it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(0o600)
    number, name, _ = migration_files("sqlite")[version]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        MIGRATIONS.apply(Database(connection), stop_before=f"{number:04d}_{name}")
        for statement in statements:
            connection.execute(statement)
