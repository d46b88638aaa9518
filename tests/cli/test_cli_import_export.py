"""Test the commands import and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TOKEN = "the-old-token-of-43-characters-in-base64url"


@pytest.fixture
def legacy_workspace(tmp_path: Path) -> Path:
    """A workspace with two records and a damaged one."""
    jobs = tmp_path / "workspace" / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    for job_id in ("abc12345", "def67890"):
        record = {
            "schema_version": 1,
            "job_id": job_id,
            "status": "pending",
            "created_at": "2026-06-19T09:32:00Z",
            "updated_at": "2026-06-19T09:32:00Z",
            "prompt": "sort",
            "agent": "codex",
            "agent_session": None,
            "broker": {"host": "127.0.0.1", "port": 1883},
            "topic_prefix": f"mam/{job_id}",
            "last_seq": 0,
            "auth_token": TOKEN,
            "reviewer": "Ü",
        }
        (jobs / f"{job_id}.json").write_text(json.dumps(record))
    (jobs / "cut.json").write_text('{"schema_version": 1, "job_')
    return tmp_path / "workspace"


def test_import_reports_each_file(cli: Any, legacy_workspace: Path) -> None:
    before = {path: path.read_bytes() for path in legacy_workspace.rglob("*.json")}
    tried = cli("import", legacy_workspace, "--dry-run", code=1)
    assert "nothing was written" in tried.err and cli("list").out == ""
    done = cli("import", legacy_workspace, "--json", code=1).json_lines
    assert {(row["file"], row["outcome"]) for row in done[:-1]} >= {
        ("abc12345.json", "imported"),
        ("def67890.json", "imported"),
        ("cut.json", "damaged"),
    }
    assert done[-1]["summary"] | {"imported": 2, "damaged": 1, "ok": False} == done[-1]["summary"]
    again = cli("import", legacy_workspace / ".mam" / "jobs", "--allow-damaged")
    assert sorted(line.split("\t")[0] for line in again.lines) == ["damaged", "unchanged", "unchanged"]
    assert cli("show", "abc12345", "--json").json["extra"] == {"reviewer": "Ü"}
    assert cli("token", "show", "abc12345").out.strip() == TOKEN
    assert {path: path.read_bytes() for path in legacy_workspace.rglob("*.json")} == before
    shown = cli.run_in_terminal("import", legacy_workspace)
    assert "cut.json" in shown and "abc12345.json" not in shown


def test_export_and_import_again(cli: Any, legacy_workspace: Path, tmp_path: Path) -> None:
    cli("import", legacy_workspace, "--allow-damaged")
    without = cli("export", tmp_path / "without")
    assert "--with-secrets" in without.err
    assert not [path for path in (tmp_path / "without").rglob("*") if path.is_file() and TOKEN in path.read_text()]
    exported = cli("export", tmp_path / "with", "--with-secrets", "--json").json_lines
    assert exported[-1]["summary"]["exported"] == 2
    for path in (legacy_workspace / ".mam" / "jobs").glob("*[0-9].json"):
        (back,) = (tmp_path / "with").rglob(path.name)
        assert json.loads(back.read_text()) == json.loads(path.read_text())
        assert back.stat().st_mode & 0o777 == 0o600
    assert "unchanged" in cli("export", tmp_path / "with", "--with-secrets").out


def test_a_folder_without_a_registry(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cli("import", tmp_path / "empty", code=2)
    cli("import", tmp_path / "missing", code=2)
    cli("import", code=2)


def test_import_reports_tokens_that_are_short_missing_or_left_out(
    cli: Any, legacy_workspace: Path, tmp_path: Path
) -> None:
    """They are reported as text, on a terminal and with --json, and are not failures: the exit code stays 0."""
    jobs = legacy_workspace / ".mam" / "jobs"
    (jobs / "cut.json").unlink()
    record = json.loads((jobs / "abc12345.json").read_bytes())
    (jobs / "abc12345.json").write_text(json.dumps(record | {"auth_token": "changeme"}))
    (jobs / "bare.json").write_text(json.dumps(record | {"job_id": "bare", "auth_token": None}))
    done = cli("import", legacy_workspace)
    assert "1 job with a token of less than 128 bits" in done.err and "abc12345" in done.err
    assert "1 job without a token" in done.err and "bare" in done.err
    assert "changeme" not in done.out + done.err
    rows = cli("import", legacy_workspace, "--json").json_lines
    assert {row["job_id"]: row["warning"] for row in rows[:-1]} == {
        "abc12345": "weak_token",
        "bare": "unsigned",
        "def67890": None,
    }
    assert (rows[-1]["summary"]["weak_token"], rows[-1]["summary"]["no_usable_token"]) == (1, 0)
    assert "abc12345.json" in cli.run_in_terminal("import", legacy_workspace)
    cli("export", tmp_path / "out")
    other = f"sqlite:///{tmp_path}/other.db"
    cli("--db", other, "init")
    done = cli("--db", other, "import", tmp_path / "out")
    assert "2 jobs without a usable token" in done.err and "def67890" in done.err
    assert cli("--db", other, "show", "def67890", "--json").json["auth"] == "required"
