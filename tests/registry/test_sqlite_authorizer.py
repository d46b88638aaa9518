"""Test what a query may read on SQLite: the registry without its sealed columns, and no virtual table."""

from __future__ import annotations

import sqlite3

import apsw
import pytest
from jobdb.schema import SEALED_COLUMNS, migration_files

from jobdb import InvalidInput, Registry, WorkBatch
from jobdb.engines.sqlite.authorizer import READABLE_TABLES, authorize
from tests.support.keys import vault
from tests.support.worker_records import worker_info


@pytest.fixture(scope="module")
def run_query(tmp_path_factory):
    place = tmp_path_factory.mktemp("question") / "jobs.db"
    with Registry.open(place, create=True, vault=vault()) as registry:
        registry.register(agent="codex", prompt="p", job_id="j", expected_artifacts=["a", "b"])
        registry.add_worker(worker_info("w1"))
        registry.work_batch(WorkBatch(worker_id="w1", worker="w", claim=1))
        yield lambda sql: registry.engine.store.query(sql, limit=10, timeout_sec=20)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sealed FROM tokens",
        "SELECT t.* FROM tokens AS t",
        "SELECT hex(broker_password) FROM specs",
        "SELECT 1 FROM v_jobs WHERE EXISTS (SELECT 1 FROM tokens WHERE sealed > x'00')",
        "WITH x AS MATERIALIZED (SELECT sealed AS s FROM tokens) SELECT s FROM x",
        "SELECT count(DISTINCT sealed) FROM tokens",
        "SELECT job FROM tokens ORDER BY sealed",
        "SELECT hex(sealed) FROM tokens FULL JOIN (SELECT 1 AS x, NULL AS sealed) USING (sealed)",
        "SELECT * FROM specs NATURAL FULL JOIN specs AS again",
        "SELECT count(*) FROM tokens JOIN (SELECT x'00' AS sealed) USING (sealed)",
        "SELECT fingerprint FROM token_fingerprints FULL JOIN (SELECT NULL AS fingerprint) USING (fingerprint)",
        "SELECT count(*) FROM token_fingerprints",
        "SELECT name, pageno FROM dbstat",
        "WITH v_jobs AS (SELECT name FROM dbstat) SELECT * FROM v_jobs",
        "SELECT data FROM sqlite_dbpage",
        "SELECT sample FROM sqlite_stat4",
        "SELECT name FROM pragma_table_info('tokens')",
        "SELECT * FROM pragma_database_list",
        "PRAGMA database_list",
        "ATTACH 'x.db' AS x",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('x', 'y')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT rtreecheck('tokens')",
        "SELECT sqlite_log(1, 'x')",
        "EXPLAIN SELECT 1; DELETE FROM jobs",
        "DELETE FROM jobs",
        "CREATE TEMP TABLE x (y)",
        "VACUUM INTO 'copy.db'",
        "SELECT '\ud800'",
        "SELECT 1 -- \0; DELETE FROM jobs",
        "",
        b"SELECT 1",
        None,
        "SELECT " + " " * 2_000_000 + "1",
    ],
)
def test_tables_outside_the_registry_are_refused(run_query, sql):
    with pytest.raises(InvalidInput):
        run_query(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM v_jobs",
        "SELECT count(*) FROM v_events JOIN v_jobs USING (job_id)",
        "SELECT job_id, value FROM v_jobs, json_each(expected_artifacts)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
        "WITH any_name AS (SELECT 1) SELECT count(*) FROM any_name",
        "SELECT agent, count(*) AS n FROM (SELECT agent FROM v_jobs) GROUP BY agent HAVING n > 0 ORDER BY n",
        "SELECT name FROM sqlite_schema",
        "SELECT job, kid FROM tokens",
        "SELECT count(*) FROM tokens",
        "SELECT job_id, prompt FROM v_jobs NATURAL FULL JOIN v_jobs AS again",
        "SELECT rank() OVER (ORDER BY created_at) FROM v_jobs",
        "SELECT * FROM v_subscriptions, v_refusals, v_verdicts",
        "SELECT * FROM v_workers",
        "SELECT job_id, attempt, log FROM v_attempts JOIN v_workers USING (worker_id)",
        "SELECT machine, boot_id FROM workers",
    ],
)
def test_ordinary_queries_are_run(run_query, sql):
    columns, rows = run_query(sql)
    assert columns and all(len(row) == len(columns) for row in rows)
    assert rows or "v_verdicts" in sql, "no event was refused here; all other queries have rows"


def test_raw_pages_and_sealed_columns_are_denied():
    assert authorize(apsw.SQLITE_READ, "sqlite_dbpage", "data", "main", None) == apsw.SQLITE_DENY
    assert authorize(apsw.SQLITE_READ, "tokens", "sealed", "main", "v_jobs") == apsw.SQLITE_DENY


def test_every_sealed_column_exists():
    made = "".join(path.read_text("utf-8") for _number, _name, path in migration_files("sqlite"))
    assert all(f"CREATE TABLE {table} (" in made and column in made for table, column in SEALED_COLUMNS)
    assert {table for table, _column in SEALED_COLUMNS} <= READABLE_TABLES


def test_every_table_is_readable_or_said_not_to_be():
    connection = sqlite3.connect(":memory:")
    for _number, _name, path in migration_files("sqlite"):
        connection.executescript(path.read_text("utf-8"))
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")}
    connection.close()
    assert tables - READABLE_TABLES == {"token_fingerprints", "tombstones", "sqlite_sequence"}
