"""Test 500 jobs of hostile agents while their workers and keepers are killed, stopped and drained 300 times.

The short version is in tests/work. JOBDB_TORTURE_SEED repeats the choices of a run; the seed is printed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.agent.chaos import run_chaos
from tests.support.agent.fleet import worker_environment
from tests.support.databases import PostgresDatabase, SqliteDatabase

SEED = int(os.environ.get("JOBDB_TORTURE_SEED", time.time_ns() // 10**6 % 10**6))


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_five_hundred_jobs_survive_three_hundred_kills(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
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
            jobs=500,
            strikes=300,
            seed=SEED,
            longest_sec=2.0,
            limit_sec=1800,
        )
    print(f"\n{engine}: {report}")
    assert not report.violations
    assert report.strikes.total() >= 300 and min(report.strikes.values()) >= 1, "each kind has happened"
