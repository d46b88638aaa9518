"""The fixtures of the tests that run jobs: a database of each engine with its own clock, and workers in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.workers import BackgroundWorker


@pytest.fixture(params=("sqlite-wal", "postgresql"))
def work_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty, migrated database of each engine in turn, with the real clock."""
    if request.param == "postgresql":
        made = PostgresDatabase(request.getfixturevalue("postgres_server"))
        yield made
        made.recycle()
    else:
        yield SqliteDatabase(tmp_path / "sqlite", shared=False)


@pytest.fixture
def registry(work_database: Database) -> Iterator[Registry]:
    """An open registry of each engine in turn."""
    with work_database.open() as opened:
        yield opened


@pytest.fixture
def start_worker(registry: Registry) -> Iterator[Callable[..., BackgroundWorker]]:
    """Return a function that starts a worker in a thread, given its arguments; all are stopped after the test."""
    started: list[BackgroundWorker] = []

    def start(handler: Any, **options: Any) -> BackgroundWorker:
        worker = BackgroundWorker(registry, handler, **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop_and_join()
