"""Fixtures that tests of several folders use; loaded as a plugin by tests/conftest.py."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobdb import Registry
from tests.support import disks, requirements
from tests.support.databases import PostgresDatabase
from tests.support.environment import is_private
from tests.support.keys import MASTER_KEY
from tests.support.postgresql.server import PostgresServer
from tests.support.requirements import require_fuse, require_postgres
from tests.support.twohosts.mount import TwoHosts
from tests.support.workspace import Workspace

_homes = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    requirements.check_marks(item)


def _set_clean_environment(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    home.mkdir(parents=True)
    for name in filter(is_private, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("JOBDB_KEY", MASTER_KEY)


@pytest.fixture(scope="session", autouse=True)
def clean_session_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set a clean environment for the fixtures of sessions and modules; return the folder of all tests' homes."""
    homes = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _set_clean_environment(monkeypatch, homes / "session")
        yield homes


@pytest.fixture(autouse=True)
def clean_environment(clean_session_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty home, the tests' master key and no other variable that jobdb reads; return the home."""
    home = clean_session_environment / str(next(_homes))
    _set_clean_environment(monkeypatch, home)
    return home


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start one PostgreSQL server for the whole session. Each test uses its own schema or database."""
    with PostgresServer(require_postgres()) as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[PostgresDatabase]:
    """An empty, migrated database on the session's server."""
    database = PostgresDatabase(postgres_server)
    yield database
    database.recycle()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An empty SQLite registry in a private folder. The conformance suite has databases of every engine instead."""
    path = tmp_path / "private" / "jobs.db"
    path.parent.mkdir(mode=0o700)
    Registry.open(path, create=True).close()
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    with disks.small_disk(tmp_path / "small", 512) as folder:
        yield folder


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[Callable[..., TwoHosts]]:
    """Return a function that starts a file server for two hosts, with options of `tests.support.twohosts.server`."""
    require_fuse(root=False)
    with ExitStack() as running:
        yield lambda *options: running.enter_context(TwoHosts(tmp_path, *options))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A folder with a home, a place for a database, and a shell that has the jobdb command."""
    return Workspace(tmp_path)
