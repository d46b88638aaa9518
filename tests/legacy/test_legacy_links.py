"""Test that nothing is read or written through links, pipes or hard-linked files planted in a registry."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import InvalidInput, Registry
from jobdb.legacy import ImportReport, Outcome, export_registry, import_registry
from jobdb.legacy.format.damage import DamageKind
from tests.support.legacy_registry import read_records

Make = Callable[..., Path]
SECRET = b"root:$6$not-for-everybody:19000::::::\n"


@pytest.fixture
def outside_file(tmp_path: Path) -> Path:
    """A file that the importing user may read and the registry's writers may not."""
    path = tmp_path / "shadow"
    path.write_bytes(SECRET)
    return path


def with_log(jobs: Path) -> str:
    return sorted(jobs.glob("*.events.log"))[0].name.removesuffix(".events.log")


def damages(report: ImportReport) -> dict[str, DamageKind | None]:
    return {row.file: row.damage for row in report.rows() if row.outcome is Outcome.DAMAGED}


def database_bytes(tmp_path: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (tmp_path / "databases").iterdir())


def test_links_among_records_and_logs_are_reported_and_not_followed(
    tmp_path: Path, registry: Registry, make_legacy: Make, outside_file: Path
) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0, leftovers=0)
    audit = jobs.parent / "delegate_job_logs"
    ids = sorted(path.stem for path in jobs.glob("*.json"))
    (jobs / f"{ids[0]}.events.log").unlink(missing_ok=True)
    (jobs / f"{ids[0]}.events.log").symlink_to(outside_file)
    (jobs / f"{ids[1]}.events.log").unlink(missing_ok=True)
    os.mkfifo(jobs / f"{ids[1]}.events.log")
    (jobs / f"{ids[2]}.events.log").unlink(missing_ok=True)
    (jobs / f"{ids[2]}.events.log").symlink_to("/dev/zero")
    record = (jobs / f"{ids[3]}.json").rename(tmp_path / "record.json")
    (jobs / f"{ids[3]}.json").symlink_to(record)
    for number, name in ((4, "events.ndjson"), (5, "meta.json"), (6, "status.json")):
        (audit / ids[number]).mkdir(parents=True, exist_ok=True)
        (audit / ids[number] / name).unlink(missing_ok=True)
        (audit / ids[number] / name).symlink_to(outside_file)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "events.ndjson").write_bytes(SECRET)
    if (audit / ids[7]).exists():
        (audit / ids[7]).rename(tmp_path / "was")
    (audit / ids[7]).symlink_to(outside)
    report = import_registry(registry, jobs)
    found = damages(report)
    assert found[f"{ids[0]}.events.log"] is DamageKind.LINK
    assert found[f"{ids[1]}.events.log"] is DamageKind.NOT_A_FILE
    assert found[f"{ids[2]}.events.log"] is DamageKind.LINK
    assert found[f"{ids[3]}.json"] is DamageKind.LINK
    for number, name in ((4, "/events.ndjson"), (5, "/meta.json"), (6, "/status.json"), (7, "")):
        assert found[f"../delegate_job_logs/{ids[number]}{name}"] is DamageKind.LINK
    assert report.counts[Outcome.IMPORTED] == len(ids) - 1  # the jobs themselves are imported
    registry.close()
    assert b"not-for-everybody" not in database_bytes(tmp_path)


def test_an_audit_log_that_is_a_link_is_reported(tmp_path: Path, registry: Registry, make_legacy: Make) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0)
    audit = jobs.parent / "delegate_job_logs"
    audit.rename(tmp_path / "logs")
    audit.symlink_to(tmp_path / "logs")
    report = import_registry(registry, jobs)
    assert damages(report) == {"../delegate_job_logs": DamageKind.LINK}
    assert export_registry(registry, jobs, with_secrets=True).counts[Outcome.EXPORTED] == 0


def test_a_record_that_becomes_a_pipe_does_not_block_the_import(
    tmp_path: Path, registry: Registry, make_legacy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced between listing and opening; the opening itself must not block."""
    jobs = make_legacy(tmp_path / "w", damaged=0)
    real, names = os.scandir, sorted(path.name for path in jobs.glob("*.json"))

    def scandir(path: Any) -> Any:
        found = real(path)
        if Path(path) == jobs and (jobs / names[0]).is_file():
            (jobs / names[0]).unlink()
            os.mkfifo(jobs / names[0])
        return found

    monkeypatch.setattr(os, "scandir", scandir)
    assert damages(import_registry(registry, jobs))[names[0]] is DamageKind.NOT_A_FILE


def test_a_sparse_log_is_not_read(tmp_path: Path, registry: Registry, make_legacy: Make) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0)
    job_id = with_log(jobs)
    os.truncate(jobs / f"{job_id}.events.log", 100 << 30)
    os.truncate(jobs / f"{job_id}.json", 100 << 30)
    other = sorted(path.stem for path in jobs.glob("*.json") if path.stem != job_id)[0]
    with open(jobs / f"{other}.events.log", "ab") as log:
        log.truncate(100 << 30)
    found = damages(import_registry(registry, jobs))
    assert (found[f"{job_id}.json"], found[f"{other}.events.log"]) == (DamageKind.TOO_LARGE, DamageKind.TOO_LARGE)


def test_an_export_follows_no_link_and_changes_no_other_file(
    tmp_path: Path, registry: Registry, make_legacy: Make, outside_file: Path
) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0)
    import_registry(registry, jobs)
    ids = sorted(path.stem for path in jobs.glob("*.json"))
    out = tmp_path / "out" / ".mam" / "jobs"
    out.mkdir(parents=True)
    (out / f"{ids[0]}.json").symlink_to(outside_file)
    (out / f"{ids[1]}.json").symlink_to(tmp_path / "nowhere")
    log = with_log(jobs)
    (out / f"{log}.events.log").symlink_to(outside_file)
    os.link(outside_file, out / f".{ids[2]}.json.{os.getpid()}.tmp")  # a name that could be guessed
    (tmp_path / "outside").mkdir()
    audit = out.parent / "delegate_job_logs"
    audit.mkdir()
    with_audit = {path.parent.name for path in (jobs.parent / "delegate_job_logs").glob("*/meta.json")}
    linked = sorted(with_audit - {ids[0], ids[1], log})[0]
    (audit / linked).symlink_to(tmp_path / "outside")
    report = export_registry(registry, out, with_secrets=True)
    skipped = {row.job_id: row.reason for row in report.rows() if row.outcome is Outcome.SKIPPED}
    assert set(skipped) == {ids[0], ids[1], log, linked}
    assert all("link" in reason for reason in skipped.values())
    assert outside_file.read_bytes() == SECRET
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / "outside").iterdir()) == []
    assert not report.ok


@pytest.mark.parametrize("inside", [".mam", ".mam/jobs"])
def test_a_target_behind_a_link_is_refused(tmp_path: Path, registry: Registry, make_legacy: Make, inside: str) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0)
    import_registry(registry, jobs)
    target = tmp_path / "elsewhere" / "jobs"
    target.mkdir(parents=True)
    link = tmp_path / "out" / inside
    link.parent.mkdir(parents=True)
    link.symlink_to(target if inside.endswith("jobs") else target.parent)
    for function in (export_registry, import_registry):
        with pytest.raises(InvalidInput, match="is a link"):
            function(registry, tmp_path / "out")
    assert list(target.iterdir()) == []
    # The folder that is named may be one.
    assert export_registry(registry, link, with_secrets=True).counts[Outcome.EXPORTED] == len(
        read_records(tmp_path / "w")
    )


def test_many_strange_names_are_reported(tmp_path: Path, registry: Registry, make_legacy: Make) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0, leftovers=0)
    for number in range(2000):
        (jobs / os.fsdecode(b"\xff\x1b[31m %d" % number)).write_bytes(b"")
    (jobs / "-rf.json").write_text("{}")
    (jobs / ".json").write_text("{}")
    (jobs / "a\nb.json").write_text(json.dumps({"schema_version": 1, "job_id": "a\nb"}))
    report = import_registry(registry, jobs)
    assert report.counts[Outcome.IGNORED] == 2000
    assert set(damages(report)) == {"-rf.json", ".json", "a\\nb.json"}
    assert all(row.file.isprintable() for row in report.rows())
