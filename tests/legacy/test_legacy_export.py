"""Test the export: equal to the imported registry, never over newer data, with secrets only on request."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import Busy, InvalidInput, Registry, StorageFailed
from jobdb.legacy import Outcome, export_registry, import_registry, write_lines
from tests.support.legacy_registry import read_records, registry_contents

Open = Callable[..., Registry]


def compare(source: Path, copy: Path) -> int:
    """Compare records as JSON and logs byte for byte; return the number of files compared."""
    compared = 0
    for path in sorted(source.glob(".*/*/**/*")):
        if not path.is_file() or path.name == ".lock" or path.suffix == ".tmp" or path.name.startswith("bad0"):
            continue
        there = copy / path.relative_to(source)
        if path.suffix == ".json":
            assert json.loads(there.read_bytes()) == json.loads(path.read_bytes()), path.name
        else:
            assert there.read_bytes() == path.read_bytes(), path.name
        compared += 1
    return compared


def test_import_and_export_round_trip(sample: Path, tmp_path: Path, open_database: Open) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    import_registry(first, sample)
    out = tmp_path / "out"
    report = export_registry(first, out, with_secrets=True)
    assert (report.counts[Outcome.EXPORTED], report.ok, report.secrets_left_out) == (200, True, 0)
    assert compare(sample, out) > 500
    assert len([path for path in out.rglob("*") if path.is_file()]) == compare(sample, out) + 1
    back = import_registry(second, out)
    assert (back.counts[Outcome.IMPORTED], back.counts[Outcome.DAMAGED]) == (200, 0)
    assert registry_contents(second) == registry_contents(first)


def test_files_are_private_and_nothing_is_left_behind(
    tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path]
) -> None:
    make_legacy(tmp_path / "w")
    import_registry(registry, tmp_path / "w")
    export_registry(registry, tmp_path / "out", with_secrets=True)
    for path in (tmp_path / "out").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
        assert path.suffix != ".tmp"


def test_a_second_export_changes_nothing(tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path]) -> None:
    make_legacy(tmp_path / "w")
    import_registry(registry, tmp_path / "w")
    assert export_registry(registry, tmp_path / "w", with_secrets=True).counts[Outcome.UNCHANGED] == 12
    assert export_registry(registry, tmp_path / "out", with_secrets=True).counts[Outcome.EXPORTED] == 12
    assert export_registry(registry, tmp_path / "out", with_secrets=True).counts[Outcome.UNCHANGED] == 12


def test_changes_since_the_import_are_exported(sample: Path, registry: Registry, tmp_path: Path) -> None:
    import_registry(registry, sample)
    claim = registry.claim(worker="w")
    assert claim is not None
    registry.publish(claim.job_id, "progress", detail="half", attempt=claim.attempt)
    registry.complete(claim.job_id, attempt=claim.attempt, detail="done")
    native = registry.register(agent="codex", prompt="new here", extra={"role": "x"})
    report = export_registry(registry, sample, with_secrets=True)
    assert (report.counts[Outcome.EXPORTED], report.counts[Outcome.UNCHANGED]) == (2, 199)
    records = read_records(sample)
    record = records[f"{claim.job_id}.json"]
    assert (record["status"], record["last_seq"]) == ("completed", 2)
    log = next(sample.rglob(f"jobs/{claim.job_id}.events.log")).read_text().splitlines()
    assert [json.loads(line)["detail"] for line in log] == ["half", "done"]
    new = records[f"{native.job_id}.json"]
    assert new["auth_token"] == registry.tokens.show(native.job_id)
    assert (new["role"], new["broker"], new["schema_version"]) == ("x", None, 1)
    assert import_registry(registry, sample).counts[Outcome.UNCHANGED] == 201


def test_rolling_back_and_forward_again(sample: Path, registry: Registry) -> None:
    """Export, let the old scripts work, import again: their changes are imported."""
    import_registry(registry, sample)
    native = registry.register(agent="codex", prompt="new here")
    export_registry(registry, sample, with_secrets=True)
    path = next(sample.rglob(f"jobs/{native.job_id}.json"))
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps(record | {"status": "cancelled", "updated_at": "2099-01-01T00:00:00Z"}))
    report = import_registry(registry, sample)
    assert [row.job_id for row in report.rows(lambda outcome: outcome is Outcome.UPDATED)] == [native.job_id]
    assert registry.get(native.job_id).status == "cancelled"


def test_events_are_added_to_a_log_that_was_cut_short(
    tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path]
) -> None:
    jobs = make_legacy(tmp_path / "w")
    log = next(
        path
        for path in sorted(jobs.glob("*.events.log"))
        if json.loads((jobs / f"{path.name.partition('.')[0]}.json").read_bytes())["status"] == "running"
    )
    log.write_bytes(log.read_bytes() + b'{"half')
    import_registry(registry, tmp_path / "w")
    registry.publish(log.name.partition(".")[0], "progress", detail="more")
    export_registry(registry, tmp_path / "w", with_secrets=True)
    lines = log.read_bytes().splitlines()
    assert lines[-2] == b'{"half'
    assert json.loads(lines[-1])["detail"] == "more"


def test_nothing_newer_is_overwritten(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    records = [record for name, record in read_records(sample).items() if not name.startswith("bad")]
    running = [record["job_id"] for record in records if record["status"] == "running"]
    newer, ahead, damaged, log = running[:4]

    def path(job_id: str, suffix: str = ".json") -> Path:
        return next(sample.glob(".*/jobs")) / (job_id + suffix)

    for job_id in (newer, ahead, damaged, log):
        registry.publish(job_id, "progress", detail="here")
    path(newer).write_text(json.dumps(json.loads(path(newer).read_bytes()) | {"updated_at": "2099-01-01T00:00:00Z"}))
    here = registry.get(ahead)
    path(ahead).write_text(
        json.dumps(
            json.loads(path(ahead).read_bytes())
            | {"updated_at": here.updated_at.strftime("%Y-%m-%dT%H:%M:%SZ"), "last_seq": here.last_seq + 1}
        )
    )
    path(damaged).write_bytes(b"{")
    with path(log, ".events.log").open("a") as stream:
        stream.write('{"line": "of an old agent"}\n')
    before = {job_id: path(job_id).read_bytes() for job_id in (newer, ahead, damaged, log)}
    report = export_registry(registry, sample, with_secrets=True)
    reasons = {row.job_id: row.reason for row in report.rows(lambda outcome: outcome is Outcome.SKIPPED)}
    assert not report.ok
    assert set(reasons) == {newer, ahead, damaged, log}
    assert "newer there" in reasons[newer]
    assert "events there" in reasons[ahead]
    assert "damaged" in reasons[damaged]
    assert "lines there that are not here" in reasons[log]
    assert {job_id: path(job_id).read_bytes() for job_id in before} == before


def test_secrets_are_left_out_unless_requested(sample: Path, registry: Registry, tmp_path: Path) -> None:
    import_registry(registry, sample)
    report = export_registry(registry, tmp_path / "out")
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    secrets = {r["auth_token"] for r in read_records(sample).values() if r.get("auth_token")}
    assert report.secrets_left_out >= len(secrets) > 50
    assert not [secret for secret in secrets if secret.encode() in written]
    assert all(record.get("auth_token") is None for record in read_records(tmp_path / "out").values())
    kept = export_registry(registry, sample)
    assert kept.counts[Outcome.SKIPPED] == report.secrets_left_out
    assert {r.get("auth_token") for r in read_records(sample).values()} - {None} == secrets


def test_the_export_waits_for_the_legacy_lock(tmp_path: Path, registry: Registry) -> None:
    import fcntl

    jobs = tmp_path / "w" / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    fd = os.open(jobs / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        for function in (export_registry, import_registry):
            with pytest.raises(Busy):
                function(registry, tmp_path / "w", lock_timeout_sec=0.1)
    finally:
        os.close(fd)


def test_a_target_folder_that_cannot_be_created(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / ".mam").write_text("a file")
    with pytest.raises(StorageFailed, match=r"\.mam"):
        export_registry(registry, tmp_path / "closed")


def test_ndjson_and_csv(tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path]) -> None:
    make_legacy(tmp_path / "w")
    import_registry(registry, tmp_path / "w")
    stream = io.StringIO()
    assert write_lines(registry, stream, "ndjson") == 12
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {document["job_id"] for document in documents} == set(registry_contents(registry))
    for document in documents:
        events = [json.loads(event.payload) for event in registry.events(document["job_id"])]
        assert document.pop("events") == events
        assert document == registry.get(document["job_id"]).as_dict()
    stream = io.StringIO(newline="")
    assert write_lines(registry, stream, "csv", with_secrets=True) == 12
    rows = list(csv.DictReader(io.StringIO(stream.getvalue(), newline="")))
    assert [row["prompt"] for row in rows] == [document["prompt"] for document in documents]
    for row in rows:
        job: Any = registry.get(row["job_id"])
        assert row["auth_token"] == (registry.tokens.show(job.job_id) if job.auth == "required" else "")
    with pytest.raises(InvalidInput, match="ndjson, csv"):
        write_lines(registry, stream, "xml")
