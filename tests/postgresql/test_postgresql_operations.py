"""Test the doctor, the statistics and the live view on PostgreSQL."""

from __future__ import annotations

from jobdb.doctor import diagnose
from jobdb.model.times import now_ms
from jobdb.operations.snapshot import snapshot
from jobdb.operations.stats import collect, prometheus
from jobdb.urls import parse_url
from tests.support.databases import PostgresDatabase
from tests.support.requirements import require_module


def test_operational_tools_work_on_postgresql(postgres_database: PostgresDatabase) -> None:
    database = postgres_database
    now = now_ms()
    database.set_clock(now - 3_600_000)
    with database.open() as registry:
        registry.register(job_id="leased", agent="codex", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.claim(job_id="leased", worker="w", lease_sec=60)
        registry.register(job_id="asking", agent="human", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.publish("asking", "permission_required", detail="may I?")
        payload = registry.events("asking")[0].payload
        registry.accept(payload.replace("may I", "I do"), subscriber="me")
        ended = registry.register(agent="codex", prompt="p")
        registry.claim(job_id=ended.job_id, worker="w")
        database.set_clock(now)
        registry.complete(ended.job_id, attempt=1)

        numbers = collect(registry)
        assert numbers.jobs == {"pending": 0, "running": 2, "completed": 1, "error": 0, "cancelled": 0}
        assert numbers.durations[0].mean_sec == 3600.0 and numbers.refusals["bad_signature"][0] == 1
        assert 'jobdb_jobs{status="running"} 2' in prometheus(numbers)
        seen = snapshot(registry)
        assert [job.job_id for job in seen.jobs] == ["asking", "leased"] and seen.jobs[0].awaits_permission

    found = {
        finding.check: finding for finding in diagnose(parse_url(database.url), full=True, clock=lambda: now).findings
    }
    bad = {check for check, finding in found.items() if finding.level != "ok"}
    assert bad == {"leases", "stuck jobs", "permissions", "refusals"}, found
    assert "PostgreSQL" in found["server"].message and found["master key"].level == "ok"


def test_a_server_that_is_down() -> None:
    require_module("psycopg", "jobdb[postgresql]")
    report = diagnose(parse_url("postgresql://nobody:hidden@127.0.0.1:1/nowhere"))
    assert [finding.check for finding in report.findings] == ["open"] and not report.ok
    assert "hidden" not in str(report.as_dict())
