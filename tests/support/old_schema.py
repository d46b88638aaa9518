"""Databases of older schema versions, as an older jobdb left them."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
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


_schemas = itertools.count(1)


def create_old_database(
    engine: str,
    version: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    *,
    statements: Iterable[str],
) -> tuple[str, Callable[[], Any]]:
    """Create a database of either engine at an old version, with rows; return its URL and a function that migrates it.

    Args:
        engine: "sqlite" or "postgresql".
        version: the schema version.
        tmp_path: where a SQLite file goes, in a folder of its own.
        request: for the PostgreSQL server.
        monkeypatch: hides the later migrations from the one that creates the PostgreSQL schema.
        statements: what inserts the rows, in SQLite's dialect; their ids are below 100.
    """
    if engine == "sqlite":
        from jobdb.engines.sqlite.migrations import migrate

        path = tmp_path / "db" / "jobs.db"
        create_at_version(path, version, statements=statements)
        return str(path), lambda: migrate(path)
    import psycopg

    from jobdb.engines.postgresql import migrations

    server = request.getfixturevalue("postgres_server")
    schema = f"version_{version}_{next(_schemas)}"
    with psycopg.connect(server.url()) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    url = server.url(schema=schema)
    with monkeypatch.context() as patched:
        files = migrations.migration_files
        patched.setattr(migrations, "migration_files", lambda name: files(name)[:version])
        migrations.migrate_postgresql(url)
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.replace("X'", "'\\x").encode())
        connection.execute(b"SELECT setval('jobs_id_seq', 100)")
    return url, lambda: migrations.migrate_postgresql(url)
