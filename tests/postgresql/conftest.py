"""Fixtures of the tests for PostgreSQL alone: its schemas and its failures."""

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.postgresql.server import PostgresServer
from tests.support.requirements import require_postgres

_schemas = itertools.count(1)


@pytest.fixture
def killable_server() -> Iterator[PostgresServer]:
    """Start a server that the test may kill, restart or reconfigure."""
    with PostgresServer(require_postgres()) as server:
        yield server


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """The URL of an empty schema without tables."""
    schema = f"test_{next(_schemas)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    return postgres_server.url(schema=schema)
