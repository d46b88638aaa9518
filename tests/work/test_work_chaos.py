"""Test jobs of hostile agents while their workers and keepers are killed at random: short; tests/torture is longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.agent.chaos import run_chaos
from tests.support.agent.fleet import WITHOUT_CGROUPS, jobdb_work, worker_environment
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.requirements import on_linux

pytestmark = on_linux("has /proc and child subreapers")


@pytest.mark.parametrize(("engine", "seed"), [("sqlite", 1), ("postgresql", 2)])
def test_jobs_survive_kills(engine: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    database: SqliteDatabase | PostgresDatabase
    if engine == "sqlite":
        database = SqliteDatabase(tmp_path / "private", shared=False)
    else:
        database = request.getfixturevalue("postgres_database")
    with database.open() as registry:
        report = run_chaos(
            tmp_path,
            registry,
            worker_environment(tmp_path, database.url),
            jobs=60,
            strikes=20,
            seed=seed,
            longest_sec=0.6,
            limit_sec=120,
            work=[*WITHOUT_CGROUPS, *jobdb_work()] if engine == "sqlite" and os.geteuid() == 0 else jobdb_work(),
        )
    assert not report.violations, str(report)
    assert report.strikes.total() >= 20, str(report)
