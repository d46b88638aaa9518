"""Test that the statistics agree with the registry, in each of their forms."""

from __future__ import annotations

import json
import re

import pytest

from jobdb.model.times import now_ms
from jobdb.operations.stats import collect, prometheus
from tests.support.workspace import Workspace

DAY_MS = 86_400_000


@pytest.fixture
def sample_registry(workspace: Workspace) -> Workspace:
    """A registry where one job completed after 90 s yesterday, one runs, one is pending; a forged event was refused."""
    moment = now_ms() - DAY_MS
    with workspace.registry(clock=lambda: moment) as registry:
        ended = registry.register(agent="codex", prompt="ended", timeout_sec=0, idle_timeout_sec=0)
        claim = registry.claim(agent="codex", worker="w", lease_sec=1000)
        moment += 90_000
        registry.complete(ended.job_id, attempt=claim.attempt)
    with workspace.registry() as registry:
        running = registry.register(agent='odd "agent"\\\n', prompt="runs")
        payload = registry.publish(running.job_id, "started").payload
        registry.accept(payload.replace("started", "progress"), subscriber="me")
        registry.register(agent="codex", prompt="waits")
    return workspace


def test_stats_are_correct(sample_registry: Workspace) -> None:
    with sample_registry.registry() as registry:
        found = collect(registry)
        none = collect(registry, days=1).by_day
    assert found.jobs == {"pending": 1, "running": 1, "completed": 1, "error": 0, "cancelled": 0}
    assert found.by_agent["codex"] == {"pending": 1, "running": 0, "completed": 1, "error": 0, "cancelled": 0}
    assert [sum(counts.values()) for counts in found.by_day.values()] == [1, 2]
    assert [sum(counts.values()) for counts in none.values()][-1] == 2
    (duration,) = found.durations
    assert (duration.agent, duration.jobs, duration.mean_sec, duration.longest_sec) == ("codex", 1, 90.0, 90.0)
    assert found.refusals["bad_signature"][0] == 1
    assert (found.events, found.outbox) == (2, 0)


def test_stats_as_json_and_as_lines(sample_registry: Workspace) -> None:
    found = json.loads(sample_registry.jobdb("stats --json"))
    assert list(found) == [
        *("taken_at", "days", "jobs", "by_agent", "by_day", "durations"),
        *("refusals", "refused_last_at", "events", "outbox", "delayed", "retried", "open_questions"),
    ]
    assert found["refusals"] == {"bad_signature": 1} and found["durations"][0]["mean_sec"] == 90.0
    assert json.loads(sample_registry.jobdb("stats --format json --days 3"))["days"] == 3
    lines = sample_registry.jobdb("stats").splitlines()
    assert {"job\tcompleted\t1", "agent\tcodex\tpending\t1", "duration\tcodex\t1\t90.0\t90.0", "events\t2"} <= set(
        lines
    )
    assert sample_registry.sh("jobdb stats --format xml").returncode == 2


def test_prometheus(sample_registry: Workspace) -> None:
    text = sample_registry.jobdb("stats --format prometheus")
    with sample_registry.registry() as registry:
        assert prometheus(collect(registry)) == text + "\n"
    sample = re.compile(r'^[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\[\\"n])*"(,[a-z]+="(?:[^"\\\n]|\\[\\"n])*")*\})? [0-9.e+]+$')
    families = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            families.add(line.split()[2])
        elif not line.startswith("# HELP "):
            assert sample.match(line), line
            assert re.split(r"[ {]", line)[0] in families
    assert 'jobdb_jobs{status="completed"} 1' in text
    assert 'jobdb_agent_jobs{agent="odd \\"agent\\"\\\\\\n",status="running"} 1' in text
    assert 'jobdb_refusals_total{verdict="bad_signature"} 1' in text


def test_large_numbers_are_exact() -> None:
    from jobdb.operations.stats import Stats

    text = prometheus(Stats("", 14, {"completed": 12_345_678}, {}, {}, (), {}, 98_765_432, 0, open_questions=3))
    assert 'jobdb_jobs{status="completed"} 12345678\n' in text and "jobdb_events 98765432\n" in text
    assert "jobdb_open_questions 3\n" in text
