"""Test the migration of a version 5 database: its jobs keep their states, are claimed, and can be delayed and tried."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from jobdb import AttemptRequired, JobStatus, Registry, SchemaMismatch, WorkBatch
from jobdb.engines.sql.sealer import token_binding
from tests.support.keys import TOKEN, vault
from tests.support.old_schema import create_old_database
from tests.support.worker_records import worker_info

ENGINES = ("sqlite", "postgresql")
NOW_MS = 1_790_000_000_000
JOBS = ("urgent", "waiting", "leased", "expired", "unfenced", "silent", "done")


def rows():
    """Yield the rows of version 5: pending jobs, running ones with and without a lease, and an ended one."""
    columns = "id, job_id, status, agent, priority, topic_prefix, timeout_sec, idle_timeout_sec, kid, last_seq, "
    columns += "terminal_seq, attempt, strikes, worker, lease_until_ms, lease_ms, created_ms, updated_ms, started_ms, "
    columns += "finished_ms"
    # The database's clock is the server's on PostgreSQL: leases run until long after, or ended long before.
    later, before = 2**42, NOW_MS - 60_000
    for number, (status, priority, idle, attempt, strikes, worker, until) in enumerate(
        (
            ("pending", 5, 120, 0, 0, "NULL", "NULL"),
            ("pending", 0, 120, 1, 1, "NULL", "NULL"),
            ("running", 0, 120, 1, 0, "'w'", later),
            ("running", 0, 120, 2, 1, "'w'", before),
            ("running", 0, 0, 1, 0, "'w'", "NULL"),
            ("running", 0, 120, 1, 0, "'w'", "NULL"),
            ("completed", 0, 120, 1, 0, "'w'", "NULL"),
        ),
        start=1,
    ):
        started = "NULL" if status == "pending" else NOW_MS - 600_000
        ended, seq = ("NULL", "NULL") if status != "completed" else (NOW_MS, 0)
        lease = "NULL" if until == "NULL" else later if until == later else 60_000
        yield (
            f"INSERT INTO jobs ({columns}) VALUES ({number}, '{JOBS[number - 1]}', '{status}', 'a', {priority}, "
            f"'t/{number}', 0, {idle}, 1, 0, {seq}, {attempt}, {strikes}, {worker}, {until}, {lease}, "
            f"{NOW_MS - 700_000}, {NOW_MS - 600_000}, {started}, {ended})"
        )
        yield f"INSERT INTO specs (job, prompt) VALUES ({number}, 'p')"
        sealed = vault().seal(TOKEN, bound_to=token_binding(JOBS[number - 1], 1)).hex()
        yield f"INSERT INTO tokens (job, kid, sealed, created_ms) VALUES ({number}, 1, X'{sealed}', {NOW_MS})"
    yield f"INSERT INTO settings (name, value) VALUES ('key_id', '{vault().key_id}')"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_migrated_database_of_version_5_is_worked_on(engine, tmp_path, request, monkeypatch):
    url, migrate = create_old_database(engine, 5, tmp_path, request, monkeypatch, statements=rows())
    with pytest.raises(SchemaMismatch, match="migrate"):
        Registry.open(url)
    kept = migrate()
    if engine == "sqlite":
        with closing(sqlite3.connect(kept)) as backup:
            assert backup.execute("PRAGMA user_version").fetchone() == (5,)
            assert backup.execute("SELECT count(*) FROM jobs").fetchone() == (len(JOBS),)
    assert not migrate()

    with Registry.open(url, vault=vault(), clock=lambda: NOW_MS) as registry:
        found = {job.job_id: job for job in registry.jobs()}
        assert {(job.max_attempts, job.not_before) for job in found.values()} == {(None, None)}
        assert [found[name].status for name in JOBS] == [*["pending"] * 2, *["running"] * 4, "completed"]
        # A job keeps the limits that it was registered with.
        assert [found[name].idle_timeout_sec for name in JOBS] == [120, 120, 120, 120, 0, 120, 120]
        assert registry.workers() == [] and registry.attempts("leased") == []
        # What was pending is ready, and the lease that has expired is taken.
        registry.add_worker(worker_info("w1"))
        taken = registry.work_batch(WorkBatch(worker_id="w1", worker="w1", claim=9)).claims
        assert [(claim.job_id, claim.attempt) for claim in taken] == [("urgent", 1), ("waiting", 2), ("expired", 3)]
        assert [attempt.worker_id for attempt in registry.attempts("expired")] == ["w1"]
        with pytest.raises(AttemptRequired, match="attempt 1"):
            registry.publish("leased", "progress")
        assert registry.publish("leased", "progress", attempt=1).seq == 1
        assert registry.publish("unfenced", "progress").seq == 1
        assert registry.release("waiting", attempt=2, delay_sec=60).not_before is not None
        assert registry.claim(worker="w") is None
        assert [(one.job_id, one.action) for one in registry.reap()] == [("silent", "ended")]
        assert registry.get("leased").status is JobStatus.RUNNING
