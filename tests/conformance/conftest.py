"""The fixtures of the conformance suite: every test runs on every engine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from tests.support.clocks import DatabaseClock
from tests.support.databases import ENGINES, Database, PostgresDatabase, SqliteDatabase


@pytest.fixture
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Database]:
    """Create empty databases of a named engine."""

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
    """Create an empty, migrated database of each engine in turn, with the real clock."""
    return make_database(request.param)


@pytest.fixture
def clock(database: Database) -> DatabaseClock:
    """Stop the database's clock; the test advances it."""
    return DatabaseClock(database)


@pytest.fixture
def registry(database: Database, clock: DatabaseClock) -> Iterator[Registry]:
    """An open registry under the stopped clock."""
    with database.open() as opened:
        yield opened


@pytest.fixture
def job(registry: Registry) -> Any:
    """A pending job with a token."""
    return registry.register(agent="claude-code", prompt="sort ten problems", timeout_sec=0, idle_timeout_sec=0)
