"""Test the import: valid data is imported, all else is reported, a second import changes nothing, newer data stays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import InvalidInput, JobStatus, Registry, UnknownJob, Verdict
from jobdb.legacy import Outcome, import_registry
from jobdb.legacy.format.damage import DamageKind
from tests.support.legacy_registry import read_records, registry_contents, snapshot

Open = Callable[..., Registry]


def rows(report: Any, *wanted: Outcome) -> dict[str, str]:
    return {row.file: row.reason for row in report.rows(lambda outcome: not wanted or outcome in wanted)}


def jobs_of(workspace: Path) -> Path:
    return next(workspace.glob(".*/jobs"))


def edit(workspace: Path, job_id: str, **changes: Any) -> dict[str, Any]:
    path = jobs_of(workspace) / f"{job_id}.json"
    record: dict[str, Any] = json.loads(path.read_bytes()) | changes
    path.write_text(json.dumps(record))
    return record


def one_of(workspace: Path, **wanted: Any) -> str:
    for name, record in sorted(read_records(workspace).items()):
        if all(record.get(key) == value for key, value in wanted.items()) and not name.startswith("bad"):
            return str(record["job_id"])
    raise AssertionError(wanted)


def test_the_sample_is_imported(sample: Path, registry: Registry) -> None:
    before = snapshot(sample)
    seen: list[tuple[int, int]] = []
    report = import_registry(registry, sample, progress=lambda done, total: seen.append((done, total)))
    assert report.as_dict() == {
        "folder": str(jobs_of(sample)),
        "ok": False,
        "dry_run": False,
        "events": report.events,
        "imported": 200,
        "updated": 0,
        "unchanged": 0,
        "skipped": 0,
        "damaged": 6,
        "ignored": 1,
    }
    kinds = sorted(row.damage for row in report.rows() if row.damage)
    assert kinds == sorted(
        [
            DamageKind.CUT_SHORT,
            DamageKind.EMPTY,
            DamageKind.WRONG_ID,
            DamageKind.OTHER_SCHEMA,
            DamageKind.UNKNOWN_STATUS,
            DamageKind.NOT_UTF8,
        ]
    )
    assert snapshot(sample) == before
    assert seen[-1] == (206, 206)
    assert sum(registry.count_by_status().values()) == 200

    again = import_registry(registry, sample)
    assert (again.counts[Outcome.UNCHANGED], again.counts[Outcome.IMPORTED], again.events) == (200, 0, 0)
    assert again.counts[Outcome.DAMAGED] == 6
    assert snapshot(sample) == before
    assert import_registry(registry, sample, allow_damaged=True).ok


def test_every_field_arrives(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    here = registry_contents(registry)
    legal = {name: record for name, record in read_records(sample).items() if not name.startswith("bad")}
    assert len(legal) == len(here) == 200
    for record in legal.values():
        job, token, password, _ = here[record["job_id"]]
        for name in ("status", "created_at", "updated_at", "prompt", "agent", "topic_prefix", "last_seq"):
            assert job[name] == record[name]
        assert job["agent_session"] == record["agent_session"]
        assert job["timeout_sec"] == record.get("timeout_sec", 3600)
        assert job["idle_timeout_sec"] == record.get("idle_timeout_sec", 120)
        assert job["expected_artifacts"] == record.get("expected_artifacts", [])
        assert token == record.get("auth_token")
        assert password == record["broker"].get("password")
        assert job["broker"]["tls"] is record["broker"].get("tls", False)
        unknown = {"type", "reviewer", "reviewer_session", "max_rounds", "role", "notes"} & set(record)
        assert job["extra"] == {name: record[name] for name in unknown}


def test_events_of_both_logs_arrive_once(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    here = registry_contents(registry)
    logs = {path.name.partition(".")[0]: path for path in jobs_of(sample).glob("*.events.log")}
    audits = {path.parent.name: path for path in sample.glob(".*/delegate_job_logs/*/events.ndjson")}
    checked = 0
    for job_id, (_, _, _, payloads) in here.items():
        lines = logs[job_id].read_text().splitlines() if job_id in logs else []
        if job_id in audits:
            audit = [line for line in audits[job_id].read_text().splitlines() if '"seq"' in line]
            lines = lines or audit
        assert payloads == lines
        checked += len(lines)
    assert checked > 300


def test_events_signed_by_agents_of_imported_jobs_are_accepted(sample: Path, registry: Registry) -> None:
    from tests.support.legacy_registry import generator

    job_id = next(
        record["job_id"]
        for record in read_records(sample).values()
        if record.get("auth_token") and record.get("status") == "running"
    )
    import_registry(registry, sample)
    job = registry.get(job_id)
    event: dict[str, Any] = {
        "schema_version": 1,
        "seq": job.last_seq + 1,
        "job_id": job_id,
        "event": "completed",
        "timestamp": "2026-08-01T00:00:00Z",
        "detail": "done, with ünïcode",
        "data": {},
    }
    event["data"]["hmac_sig"] = generator.legacy_signature(event, registry.tokens.show(job_id))
    assert registry.accept(json.dumps(event), subscriber="s").verdict is Verdict.ACCEPTED
    assert registry.get(job_id).status is JobStatus.COMPLETED


def test_the_retained_end_of_a_job_without_a_log_is_its_end(sample: Path, registry: Registry) -> None:
    """The event that the broker retained is the recorded end, and a part of the log found later agrees with it."""
    from tests.support.legacy_registry import generator

    job_id = one_of(sample, status="running")
    (jobs_of(sample) / f"{job_id}.events.log").unlink(missing_ok=True)
    shutil.rmtree(sample / ".mam" / "delegate_job_logs" / job_id, ignore_errors=True)
    token = "T" * 43
    edit(sample, job_id, status="completed", last_seq=2, auth_token=token, updated_at="2027-01-01T00:00:00Z")
    lines = []
    for seq, kind in ((1, "started"), (2, "completed")):
        event: dict[str, Any] = {"schema_version": 1, "seq": seq, "job_id": job_id, "event": kind, "detail": kind}
        event |= {"timestamp": "2026-08-01T00:00:00Z", "data": {}}
        event["data"]["hmac_sig"] = generator.legacy_signature(event, token)
        lines.append(json.dumps(event))
    import_registry(registry, sample)
    before = registry.get(job_id)
    assert (before.status, before.last_seq, registry.events(job_id)) == (JobStatus.COMPLETED, 2, [])
    assert registry.accept(lines[1], subscriber="s").verdict is Verdict.ACCEPTED
    assert registry.accept(lines[1], subscriber="s").verdict is Verdict.DUPLICATE
    assert registry.get(job_id) == before
    assert set(rows(import_registry(registry, sample), Outcome.UPDATED)) == set()
    (jobs_of(sample) / f"{job_id}.events.log").write_text("\n".join(lines) + "\n")
    assert set(rows(import_registry(registry, sample), Outcome.UPDATED)) == {f"{job_id}.json"}
    assert [event.payload for event in registry.events(job_id)] == lines
    assert registry.get(job_id).status is JobStatus.COMPLETED


@pytest.mark.parametrize("state", ["empty", "imported", "changed"])
def test_a_dry_run_writes_nothing_and_reports_what_would_happen(sample: Path, registry: Registry, state: str) -> None:
    if state != "empty":
        import_registry(registry, sample)
    if state == "changed":
        edit(sample, one_of(sample, status="pending"), status="running", updated_at="2027-01-01T00:00:00Z")
        registry.cancel(one_of(sample, status="running"))
    before, jobs = snapshot(sample), registry_contents(registry)
    dry = import_registry(registry, sample, dry_run=True)
    assert registry_contents(registry) == jobs
    real = import_registry(registry, sample)
    assert dry.as_dict() | {"dry_run": False} == real.as_dict()
    assert [row.as_dict() for row in dry.rows()] == [row.as_dict() for row in real.rows()]
    assert snapshot(sample) == before


def test_changed_records_are_updated(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    pending, running = one_of(sample, status="pending"), one_of(sample, status="running")
    edit(sample, pending, status="running", updated_at="2027-01-01T00:00:00Z", agent_session="tmux:new", notes=[1])
    edit(sample, running, status="completed", updated_at="2027-01-01T00:00:01Z", auth_token="A" * 43)
    new = json.loads((jobs_of(sample) / f"{pending}.json").read_bytes()) | {"job_id": "brandnew"}
    (jobs_of(sample) / "brandnew.json").write_text(json.dumps(new))
    report = import_registry(registry, sample)
    assert set(rows(report, Outcome.UPDATED)) == {f"{pending}.json", f"{running}.json"}
    assert set(rows(report, Outcome.IMPORTED)) == {"brandnew.json"}
    assert registry.get(pending).status is JobStatus.RUNNING
    assert registry.get(pending).extra["notes"] == [1]
    assert registry.get(running).status is JobStatus.COMPLETED
    assert registry.get(running).finished_at is not None
    assert registry.tokens.show(running) == "A" * 43


@pytest.mark.parametrize("lost", ["null", "missing", "empty"])
def test_a_record_that_lost_its_token_does_not_turn_signing_off(sample: Path, registry: Registry, lost: str) -> None:
    job_id = next(
        r["job_id"] for r in read_records(sample).values() if r.get("auth_token") and r["status"] == "running"
    )
    import_registry(registry, sample)
    token, path = registry.tokens.show(job_id), jobs_of(sample) / f"{job_id}.json"
    record = edit(sample, job_id, auth_token="" if lost == "empty" else None)
    if lost == "missing":
        del record["auth_token"]
        path.write_text(json.dumps(record))
    report = import_registry(registry, sample)
    assert report.counts[Outcome.UNCHANGED] == 200
    assert "no auth_token any more: the one here was kept" in rows(report, Outcome.UNCHANGED)[path.name]
    path.write_text(json.dumps(record | {"prompt": "another", "updated_at": "2027-01-01T00:00:00Z"}))
    for dry_run in (True, False):
        report = import_registry(registry, sample, dry_run=dry_run)
        assert "the one here was kept" in rows(report, Outcome.UPDATED)[path.name]
    job = registry.get(job_id)
    assert (job.prompt, job.auth) == ("another", "required")
    assert registry.tokens.show(job_id) == token
    (info,) = registry.tokens.list(job_id)
    assert (info.kid, info.state, info.imported) == (1, "current", True)
    unsigned = {"schema_version": 1, "seq": job.last_seq + 1, "job_id": job_id, "event": "completed", "detail": ""}
    unsigned |= {"timestamp": "2026-08-01T00:00:00Z", "data": {}}
    assert registry.accept(json.dumps(unsigned), subscriber="s").verdict is Verdict.UNSIGNED
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"auth_token": token}))
    assert path.name not in rows(import_registry(registry, sample), Outcome.UPDATED, Outcome.SKIPPED)


@pytest.mark.parametrize("there", [None, "as it was"])
def test_a_token_that_was_revoked_here_stays_revoked(sample: Path, registry: Registry, there: str | None) -> None:
    job_id = next(
        r["job_id"] for r in read_records(sample).values() if r.get("auth_token") and r["status"] == "running"
    )
    import_registry(registry, sample)
    registry.tokens.revoke(job_id, 1)
    changes: dict[str, Any] = {} if there else {"auth_token": None}
    edit(sample, job_id, prompt="another", updated_at="2027-01-01T00:00:00Z", **changes)
    assert "revoked here" in rows(import_registry(registry, sample), Outcome.SKIPPED)[f"{job_id}.json"]
    assert [info.state for info in registry.tokens.list(job_id)] == ["revoked"]
    assert registry.get(job_id).auth == "required"


def test_jobs_that_are_newer_here_are_never_overwritten(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    running = one_of(sample, status="running")
    registry.cancel(running)
    report = import_registry(registry, sample)
    assert "newer here" in rows(report, Outcome.SKIPPED)[f"{running}.json"]
    edit(sample, running, status="completed", updated_at="2099-01-01T00:00:00Z")
    report = import_registry(registry, sample)
    assert "ended here as cancelled" in rows(report, Outcome.SKIPPED)[f"{running}.json"]
    assert registry.get(running).status is JobStatus.CANCELLED


def test_jobs_claimed_or_given_a_new_token_here_are_left_alone(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    claim = registry.claim(worker="here")
    assert claim is not None
    edit(sample, claim.job_id, status="completed", updated_at="2099-01-01T00:00:00Z")
    rotated = next(
        r["job_id"] for r in read_records(sample).values() if r.get("auth_token") and r["status"] == "running"
    )
    registry.tokens.rotate(rotated)
    edit(sample, rotated, prompt="other", updated_at="2099-01-01T00:00:00Z")
    skipped = rows(import_registry(registry, sample), Outcome.SKIPPED)
    assert "claimed here, by here" in skipped[f"{claim.job_id}.json"]
    assert "rotated here" in skipped[f"{rotated}.json"]
    assert registry.get(claim.job_id).status is JobStatus.RUNNING


def test_a_job_of_the_same_id_that_was_registered_here_stays(sample: Path, registry: Registry) -> None:
    job_id = one_of(sample, status="completed")
    registry.register(agent="codex", prompt="mine", job_id=job_id)
    report = import_registry(registry, sample)
    assert set(rows(report, Outcome.SKIPPED)) == {f"{job_id}.json"}
    assert registry.get(job_id).prompt == "mine"
    assert report.counts[Outcome.IMPORTED] == 199


def test_an_older_file_changes_nothing(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    job_id = one_of(sample, status="running")
    edit(sample, job_id, status="pending", updated_at="2020-01-01T00:00:00Z")
    assert "newer here" in rows(import_registry(registry, sample), Outcome.SKIPPED)[f"{job_id}.json"]


def test_new_lines_of_a_log_are_imported(sample: Path, registry: Registry) -> None:
    job_id = next(
        path.name.partition(".")[0]
        for path in sorted(jobs_of(sample).glob("*.events.log"))
        if json.loads((jobs_of(sample) / f"{path.name.partition('.')[0]}.json").read_bytes())["status"] == "running"
    )
    log = jobs_of(sample) / f"{job_id}.events.log"
    whole = log.read_text()
    last = json.loads(whole.splitlines()[-1])
    more = json.dumps(last | {"seq": last["seq"] + 1, "detail": "more"})
    log.write_text(whole + more[:50])
    report = import_registry(registry, sample)
    assert "cut short" in rows(report, Outcome.DAMAGED)[log.name]
    assert registry.get(job_id).last_seq == last["seq"]
    log.write_text(whole + more + "\n")
    report = import_registry(registry, sample)
    reason = rows(report, Outcome.UPDATED)[f"{job_id}.json"]
    assert f"last_seq was {last['seq']}, behind the log" in reason
    assert report.events == 1
    assert registry.get(job_id).last_seq == last["seq"] + 1
    assert registry.publish(job_id, "progress").seq == last["seq"] + 2


def test_an_event_with_different_content_here_is_not_merged(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    path = next(
        path
        for path in sorted(jobs_of(sample).glob("*.events.log"))
        if registry.get(path.name.partition(".")[0]).status is JobStatus.RUNNING
    )
    job_id = path.name.partition(".")[0]
    registry.publish(job_id, "progress", detail="from here")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, json.dumps(json.loads(lines[-1]) | {"seq": len(lines) + 1})]) + "\n")
    edit(sample, job_id, last_seq=len(lines) + 1, updated_at="2099-01-01T00:00:00Z")
    report = import_registry(registry, sample)
    assert f"event {len(lines) + 1} has other content here" in rows(report, Outcome.SKIPPED)[f"{job_id}.json"]
    assert registry.events(job_id)[-1].detail == "from here"


def test_unexpected_entries_of_the_folder(sample: Path, registry: Registry) -> None:
    jobs = jobs_of(sample)
    (jobs / "folder.json").mkdir()
    (jobs / "dangling.json").symlink_to(sample / "nowhere")
    os.mkfifo(jobs / "pipe.json")
    (jobs / "orphan.events.log").write_text("{}\n")
    (jobs.parent / "delegate_job_logs" / "lonely").mkdir()
    (jobs / "notes.txt").write_text("hello")
    (jobs / "archive").mkdir()
    (jobs / os.fsdecode(b"\xff\n.json")).write_bytes(b"{")
    report = import_registry(registry, sample)
    damaged = rows(report, Outcome.DAMAGED)
    assert "a folder" in damaged["folder.json"]
    assert "it is a dangling link" in damaged["dangling.json"]
    assert "a pipe" in damaged["pipe.json"]
    assert "no record orphan.json" in damaged["orphan.events.log"]
    assert "no record lonely.json" in damaged["../delegate_job_logs/lonely"]
    assert all(name.isprintable() for name in damaged)
    assert len(damaged) == 6 + 6
    assert set(rows(report, Outcome.IGNORED)) >= {"notes.txt", "archive"}
    assert report.counts[Outcome.IMPORTED] == 200


def test_the_older_folder_name(tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path]) -> None:
    make_legacy(tmp_path / "w", layout=".hermes")
    assert import_registry(registry, tmp_path / "w").counts[Outcome.IMPORTED] == 12
    assert import_registry(registry, tmp_path / "w" / ".hermes" / "jobs").counts[Outcome.UNCHANGED] == 12


def test_a_read_only_folder_is_imported(sample: Path, registry: Registry) -> None:
    (jobs_of(sample) / ".lock").unlink()
    before = snapshot(sample)
    for path in [*sample.rglob("*"), sample]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert import_registry(registry, sample).counts[Outcome.IMPORTED] == 200
    finally:
        for path in [sample, *sample.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)
    assert {name: entry[2] for name, entry in snapshot(sample).items()} == {
        name: entry[2] for name, entry in before.items()
    }


def test_a_folder_that_is_not_a_registry_is_refused(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(InvalidInput):
        import_registry(registry, tmp_path / "missing")


def test_no_secret_is_readable_in_the_database(sample: Path, registry: Registry, tmp_path: Path) -> None:
    records = read_records(sample)
    leaky = next(r for r in records.values() if r.get("auth_token") and r["status"] == "running")
    log = jobs_of(sample) / f"{leaky['job_id']}.events.log"
    with log.open("a") as stream:
        event = {"schema_version": 1, "seq": 99, "job_id": leaky["job_id"], "event": "progress"}
        event |= {"timestamp": "2026-06-20T00:00:00Z", "detail": "", "data": {"auth_token": leaky["auth_token"]}}
        stream.write(json.dumps(event) + "\n")
    report = import_registry(registry, sample)
    assert "in clear" in rows(report, Outcome.DAMAGED)[log.name]
    secrets = {r["auth_token"] for r in records.values() if r.get("auth_token")}
    secrets |= {p for r in records.values() if (p := (r.get("broker") or {}).get("password"))}
    assert len(secrets) > 100
    printed = json.dumps([row.as_dict() for row in report.rows()]) + repr(list(report.rows()))
    stored = b"".join(path.read_bytes() for path in (tmp_path / "databases").iterdir())
    assert b"sort ten" in stored or len(stored) > 100_000
    for secret in secrets:
        assert secret.encode() not in stored
        assert secret not in printed


def test_a_pruned_job_is_imported_again_only_if_its_record_has_changed(sample: Path, registry: Registry) -> None:
    job_id = one_of(sample, status="completed")
    import_registry(registry, sample)
    pruned = registry.prune(older_than_sec=0, limit=10_000, now_ms=2**42)
    assert job_id in pruned
    again = import_registry(registry, sample)
    assert set(rows(again, Outcome.SKIPPED)) == {f"{name}.json" for name in pruned}
    with pytest.raises(UnknownJob):
        registry.get(job_id)
    edit(sample, job_id, updated_at="2035-01-01T00:00:00Z")
    assert set(rows(import_registry(registry, sample), Outcome.IMPORTED)) == {f"{job_id}.json"}
