"""Test that each fault planted in the jobs is found, and that the doctor's own advice fixes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from jobdb import Registry
from jobdb.doctor import diagnose
from jobdb.model import Broker, WorkBatch
from jobdb.model.times import now_ms
from jobdb.urls import parse_url
from tests.support.clocks import ManualClock
from tests.support.worker_records import worker_info
from tests.support.workspace import Workspace

HOUR_MS = 3_600_000


def clock_at(hours: float) -> ManualClock:
    """Return a stopped clock that is some hours ahead of now."""
    return ManualClock(now_ms() + round(hours * HOUR_MS))


def registry_at(workspace: Workspace, hours: float) -> Registry:
    """Open the registry with its clock some hours ahead."""
    return workspace.registry(clock=clock_at(hours))


def test_expired_leases(workspace: Workspace) -> None:
    with registry_at(workspace, -2) as registry:
        registry.register(agent="codex", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.claim(agent="codex", worker="w", lease_sec=60)
    diagnosis = workspace.doctor()
    diagnosis.found("leases", "warn", "1 expired", "119m ago")
    diagnosis.apply_advice("leases")
    assert workspace.jobdb("list --status pending").count("codex") == 1


def test_jobs_past_their_limits(workspace: Workspace) -> None:
    with registry_at(workspace, -2) as registry:
        job = registry.register(agent="codex", prompt="p", timeout_sec=60)
        registry.publish(job.job_id, "started")
    diagnosis = workspace.doctor()
    diagnosis.found("time limits", "warn", "1 running")
    diagnosis.apply_advice("time limits")


def test_jobs_that_will_never_end(workspace: Workspace) -> None:
    with workspace.registry() as registry:
        lively = registry.register(agent="codex", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.publish(lively.job_id, "started")
    workspace.doctor().expect_ok("stuck jobs")
    with registry_at(workspace, -2) as registry:
        job = registry.register(agent="codex", prompt="p", timeout_sec=0, idle_timeout_sec=0)
        registry.publish(job.job_id, "started")
    diagnosis = workspace.doctor()
    diagnosis.found("stuck jobs", "warn", "1 running", job.job_id)
    diagnosis.apply_advice("stuck jobs")
    assert json.loads(workspace.jobdb(f"show {job.job_id} --json"))["status"] == "cancelled"


def test_jobs_that_wait_for_a_person(workspace: Workspace) -> None:
    with registry_at(workspace, -0.5) as registry:
        job = registry.register(agent="codex", prompt="p", idle_timeout_sec=0)
        registry.publish(job.job_id, "permission_required", detail="delete all?")
    found = workspace.doctor().found("permissions", "warn", "1 jobs", "30m")
    assert "delete all?" in workspace.sh(found["fix"]).stdout
    workspace.jobdb(f"publish {job.job_id} progress --detail 'was allowed'")
    workspace.doctor().expect_ok("permissions")


def test_an_outbox_that_a_relay_does_not_empty(workspace: Workspace) -> None:
    with registry_at(workspace, -1) as registry:
        job = registry.register(agent="codex", prompt="p", broker=Broker("127.0.0.1", 1), idle_timeout_sec=0)
        registry.publish(job.job_id, "progress")
    with workspace.registry() as registry:
        assert registry.engine.acquire_lease("relay", holder="somebody", lease_ms=600_000)
    workspace.doctor().found("outbox", "warn", "although a relay is running")


def test_a_subscriber_whose_handler_hangs(workspace: Workspace) -> None:
    with registry_at(workspace, -1) as registry:
        job = registry.register(agent="codex", prompt="p", idle_timeout_sec=0)
        registry.publish(job.job_id, "started")
        follower = registry.subscribe(job.job_id, subscriber="mailer", idle_timeout_sec=5)
        assert next(follower).seq == 1
        registry.publish(job.job_id, "progress")
        assert next(follower).seq == 2  # 1 is handled now, and 2 never
    diagnosis = workspace.doctor()
    diagnosis.found("subscribers", "warn", "mailer", "1 events of 1 jobs", "handler")
    diagnosis.apply_advice("subscribers")


def test_a_subscriber_that_has_gone(workspace: Workspace) -> None:
    with registry_at(workspace, -1) as registry:
        job = registry.register(agent="codex", prompt="p", idle_timeout_sec=0)
        event = registry.publish(job.job_id, "started")
        registry.accept(event.payload, subscriber="orchestrator")
        for _ in range(4):
            registry.publish(job.job_id, "progress")
    diagnosis = workspace.doctor()
    diagnosis.found("subscribers", "warn", "orchestrator has not seen the last 4 events")
    diagnosis.apply_advice("subscribers")


def check_levels(workspace: Workspace, hours: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return the levels of each check at another time."""
    monkeypatch.setenv("HOME", workspace.env["HOME"])
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    levels: dict[str, list[str]] = {}
    for finding in diagnose(parse_url(workspace.database), clock=clock_at(hours)).findings:
        levels.setdefault(finding.check, []).append(finding.level)
    return levels


def test_a_clock_that_was_ahead(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry_at(workspace, 3) as registry:
        registry.register(agent="codex", prompt="p")
    found = workspace.doctor().found("clock", "fail", "2h in the future")
    assert found["fix"].startswith("timedatectl")
    assert check_levels(workspace, 4, monkeypatch)["clock"] == ["ok"]  # a clock that is right, later on


def test_times_left_by_a_clock_that_was_ahead(workspace: Workspace) -> None:
    with registry_at(workspace, 3) as registry:
        job = registry.register(agent="codex", prompt="p")
        registry.claim(worker="w", job_id=job.job_id, lease_sec=60)
        registry.engine.acquire_lease("relay", holder="dead", lease_ms=15_000)
        delayed = registry.register(agent="codex", prompt="p")
        registry.add_worker(worker_info("w1"))
        registry.work_batch(WorkBatch(worker_id="w1", worker="w1", claim=1))
        registry.release(delayed.job_id, attempt=1, delay_sec=60)
    diagnosis = workspace.doctor()
    diagnosis.found("times", "warn", "1 leases of jobs", "1 delays of jobs", "1 workers", "1 named leases")
    after = diagnosis.apply_advice("times")
    after.expect_ok("clock")
    with workspace.registry() as registry:
        assert registry.get(delayed.job_id).not_before is None
        now = datetime.now(UTC) + timedelta(minutes=1)
        assert registry.workers()[0].heartbeat_at < now and registry.attempts(delayed.job_id)[0].started_at < now
    after.found("leases", "warn", "1 expired")
    after.apply_advice("leases")


def test_forged_and_replayed_events(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with workspace.registry() as registry:
        job = registry.register(agent="codex", prompt="p")
        payload = registry.publish(job.job_id, "progress", detail="step 1").payload
    for _ in range(3):
        assert workspace.sh("jobdb accept -s me -", input=payload.replace("step 1", "step 9")).returncode == 1
    found = workspace.doctor().found("refusals", "warn", "3 bad_signature")
    assert job.job_id in workspace.sh(found["fix"]).stdout
    assert check_levels(workspace, 25, monkeypatch)["refusals"] == ["ok"]  # nothing new in the last day


def test_the_note_of_an_unsafe_override(workspace: Workspace) -> None:
    with workspace.registry() as registry:
        registry.engine.put_setting("unsafe_override", "nolock")
        registry.engine.put_setting("shared", "1")
    diagnosis = workspace.doctor()
    diagnosis.found("override", "warn", "nolock", "may have been lost")
    after = diagnosis.apply_advice("override")
    assert "wal" in after.of("journal")[0]["message"]


@pytest.mark.parametrize("name", ["$(touch PWNED)", "a; touch PWNED; '", '`touch PWNED`"', "-x $(touch PWNED)"])
def test_advice_is_a_command_whatever_names_are_in_the_database(workspace: Workspace, name: str) -> None:
    with registry_at(workspace, -1) as registry:
        job = registry.register(agent=name, prompt="p", idle_timeout_sec=0)
        event = registry.publish(job.job_id, "started")
        registry.accept(event.payload, subscriber=name)
        registry.publish(job.job_id, "progress")
    diagnosis = workspace.doctor()
    diagnosis.found("subscribers", "warn", name)
    diagnosis.apply_advice("subscribers")
    assert not (workspace.root / "PWNED").exists()
