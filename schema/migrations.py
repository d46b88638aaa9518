"""The SQLite migrations as a sqlite-utils migration set: one migration per file in ``sqlite/``.

Run by ``jobdb init`` and ``jobdb migrate``, and usable alone: ``sqlite-utils migrate jobs.db schema/migrations.py``.
Each migration is applied in one transaction with its version number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobdb.schema import APPLICATION_ID, migration_files
from sqlite_utils import Migrations

MIGRATIONS = Migrations("jobdb")


def _statements(script: str) -> list[str]:
    """Split a script into its statements, because executescript() would commit the current transaction."""
    statements, buffer = [], ""
    for line in script.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            statements.append(buffer)
            buffer = ""
    return statements


def _migration(number: int, path: Path) -> Callable[[Any], None]:
    def apply(db: Any) -> None:
        for statement in _statements(path.read_text("utf-8")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {number}")

    return apply


for _number, _name, _path in migration_files("sqlite"):
    MIGRATIONS(name=f"{_number:04d}_{_name}")(_migration(_number, _path))
