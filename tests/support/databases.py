"""A database of each engine, with the few things that a test needs beyond the registry: its clock, SQL, plans."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jobdb import Registry
from jobdb.engines.statements import psycopg_text
from tests.support.keys import vault

START_MS = 1_800_000_000_000
ENGINES = ("sqlite-wal", "sqlite-delete", "postgresql")
"""The engines, and ways to keep a SQLite file, that the conformance suite runs on."""

_schemas = itertools.count(1)


class Database(Protocol):
    """A database that a test owns."""

    name: str
    url: str

    def open(self, **options: Any) -> Registry: ...

    def set_clock(self, ms: int) -> None:
        """Stop the database's clock at ``ms`` until it is set again."""
        ...

    def sql(self, script: str) -> None:
        """Run plain statements, with no registry of this process open."""
        ...

    def scalar(self, query: str) -> Any:
        """Return the one value that a query selects."""
        ...

    def plan(self, statement: str, parameters: Mapping[str, Any]) -> str:
        """Return the plan of a statement of the .sql files."""
        ...


class SqliteDatabase:
    """A SQLite file, in WAL or, marked as shared between hosts, with a rollback journal."""

    def __init__(self, folder: Path, *, shared: bool) -> None:
        self.name = "sqlite-delete" if shared else "sqlite-wal"
        self.path = folder / "jobs.db"
        self.url = f"sqlite:///{self.path}"
        self._now: int | None = None
        from jobdb.engines.sqlite.migrations import migrate
        from jobdb.filesystem.permissions import create_private_file, make_private_folder

        make_private_folder(folder)
        create_private_file(self.path)
        migrate(self.path)
        if shared:
            self.sql("INSERT INTO settings (name, value) VALUES ('shared', '1')")

    def open(self, **options: Any) -> Registry:
        options.setdefault("vault", vault())
        if self._now is not None:
            options.setdefault("clock", lambda: self._now)
        return Registry.open(self.url, **options)

    def set_clock(self, ms: int) -> None:
        self._now = ms

    def sql(self, script: str) -> None:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=20)
        try:
            connection.executescript(f"BEGIN; {script}; COMMIT")
        finally:
            connection.close()

    def scalar(self, query: str) -> Any:
        connection = sqlite3.connect(self.path, timeout=20)
        try:
            return connection.execute(query).fetchone()[0]
        finally:
            connection.close()

    def plan(self, statement: str, parameters: Mapping[str, Any]) -> str:
        with self.open() as registry:  # its SQLite and its settings, not those of Python's sqlite3
            rows = registry.engine.store._writer.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        return "\n".join(str(row[3]) for row in rows)


class PostgresDatabase:
    """A separate schema on the test server, emptied and used again by later tests."""

    _free: ClassVar[list[str]] = []

    def __init__(self, server: Any) -> None:
        from jobdb.engines.postgresql.migrations import migrate_postgresql

        self.name = "postgresql"
        if self._free:
            self.url = self._free.pop()
            self._empty()
            return
        schema = f"conformance_{next(_schemas)}"
        self.url = server.url()
        self._execute(f"CREATE SCHEMA {schema}")
        self.url = server.url(schema=schema)
        migrate_postgresql(self.url)
        self._execute("ALTER FUNCTION jobdb_now_ms() RENAME TO real_now_ms")
        self._execute("CREATE TABLE test_clock (ms BIGINT)")
        self._execute(
            "CREATE FUNCTION jobdb_now_ms() RETURNS BIGINT LANGUAGE sql VOLATILE "
            "AS 'SELECT COALESCE((SELECT ms FROM test_clock), real_now_ms())'"
        )

    def _empty(self) -> None:
        """Delete all rows of the schema, except for the record of its migrations."""
        self._execute(
            "DO $$ BEGIN EXECUTE ("
            "SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY' FROM pg_tables "
            "WHERE schemaname = current_schema() AND tablename <> 'jobdb_migrations'); END $$"
        )

    def recycle(self) -> None:
        """Give the schema back for a later test."""
        self._execute("DELETE FROM test_clock")
        self._free.append(self.url)

    def open(self, **options: Any) -> Registry:
        options.setdefault("vault", vault())
        return Registry.open(self.url, **options)

    def set_clock(self, ms: int) -> None:
        self._execute(f"DELETE FROM test_clock; INSERT INTO test_clock VALUES ({ms})")

    def _execute(self, script: str) -> None:
        import psycopg

        with psycopg.connect(self.url) as connection:
            connection.execute(script.encode())

    def sql(self, script: str) -> None:
        self._execute(script)
        self._execute("ANALYZE jobs, specs, tokens, events, outbox, subscriptions, gaps")

    def scalar(self, query: str) -> Any:
        import psycopg

        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def plan(self, statement: str, parameters: Mapping[str, Any]) -> str:
        import psycopg

        text = psycopg_text(statement)
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(f"EXPLAIN {text}".encode(), dict(parameters)).fetchall()
        return "\n".join(row[0] for row in rows)
