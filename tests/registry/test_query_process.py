"""Test ad-hoc queries on SQLite: each ends at its timeout, and its memory is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import InvalidInput, Registry, StorageFailed, TimedOut
from jobdb.engines.sqlite import query

RunQuery = Callable[..., tuple[list[str], list[tuple[Any, ...]]]]
_ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.fixture
def run_query(tmp_path: Path) -> Iterator[RunQuery]:
    with Registry.open(tmp_path / "jobs.db", create=True) as registry:
        registry.register(agent="codex", prompt="p", job_id="j", auth_token="t" * 32)
        yield lambda sql, **more: registry.engine.store.query(sql, **{"limit": 10, "timeout_sec": 20, **more})


def test_every_type_of_value_is_returned(run_query: RunQuery) -> None:
    row = (1.5, None, b"\x00\xff", "\u00e9\U0001f600\n\0", float("inf"), -(2**63), "")
    sql = "SELECT 1.5, NULL, x'00ff', '\u00e9\U0001f600\n' || char(0), 9e999, -9223372036854775807 - 1, ''"
    assert run_query(sql)[1] == [row]
    assert run_query("SELECT job_id AS j, agent FROM v_jobs") == (["j", "agent"], [("j", "codex")])
    assert run_query("SELECT 1 AS one WHERE 0 -- none") == (["one"], [])
    assert len(run_query(_ENDLESS + "SELECT i FROM n", limit=3)[1]) == 3


@pytest.mark.parametrize(
    "sql",
    [
        # One instruction: SQLite checks no clock while it runs, and cannot be interrupted.
        "SELECT instr(hex(zeroblob(9000000)), hex(zeroblob(4000000)) || 'x')",
        _ENDLESS + "SELECT count(*) FROM n",
    ],
)
def test_a_query_ends_at_its_timeout(run_query: RunQuery, sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"longer than 0\.2 s"):
        run_query(sql, timeout_sec=0.2)
    assert time.monotonic() - began < 20  # without the limit the first takes hours
    assert run_query("SELECT 1 AS x") == (["x"], [(1,)])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT printf('%*d', 1000000000, 1)",
        "SELECT zeroblob(1000000000)",
        _ENDLESS.replace("FROM n)", "FROM n LIMIT 100)") + "SELECT group_concat(hex(zeroblob(1000000))) FROM n",
    ],
)
def test_the_memory_of_a_query_is_bounded(run_query: RunQuery, sql: str) -> None:
    with pytest.raises(InvalidInput, match="MiB"):
        run_query(sql)


def test_the_result_of_a_query_is_bounded(run_query: RunQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        query,
        "_PROGRAM",
        "from jobdb.engines.sqlite import query_process as p; p.MAX_RESULT_BYTES = 10000; p.main()",
    )
    with pytest.raises(InvalidInput, match="the result is larger"):
        run_query(_ENDLESS + "SELECT hex(zeroblob(1000)) FROM n")


@pytest.mark.parametrize(
    "sql", ["DELETE FROM jobs", "SELECT 1; SELECT 2", "SELECT sealed FROM tokens", "PRAGMA x", "("]
)
def test_statements_other_than_queries_on_the_views_are_refused(run_query: RunQuery, sql: str) -> None:
    with pytest.raises(InvalidInput):
        run_query(sql)


def test_text_that_is_not_utf8_is_reported(run_query: RunQuery) -> None:
    with pytest.raises(InvalidInput, match="not UTF-8"):
        run_query("SELECT CAST(x'ff' AS TEXT)")


@pytest.mark.parametrize("timeout_sec", [float("nan"), float("inf"), 1e300, -1.0])
def test_an_extreme_time_limit_is_no_error(run_query: RunQuery, timeout_sec: float) -> None:
    try:
        assert run_query("SELECT 1 AS x", timeout_sec=timeout_sec)[1] == [(1,)]
    except TimedOut:
        assert not timeout_sec > 0


def test_a_killed_query_process_is_reported(run_query: RunQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "_PROGRAM", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(StorageFailed, match="killed before it was done"):
        run_query("SELECT 1")
    monkeypatch.setattr(query, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(query, "START_TIMEOUT_SEC", 0.2)
    with pytest.raises(StorageFailed, match="killed before it was done"):
        run_query("SELECT '" + "x" * 1_000_000 + "'")
