"""Test the wheel: everything is under jobdb/, and it runs in an empty environment from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.environment import USER_ENVIRONMENT
from tests.support.paths import ROOT


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    environment = {**USER_ENVIRONMENT, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **env}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A clean copy: a build folder in the checkout could hide a missing file.
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, tracked):
        if name.startswith((b"jobdb/", b"cli/", b"schema/")) or name in (b"pyproject.toml", b"README.md", b"LICENSE"):
            target = source / os.fsdecode(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / os.fsdecode(name)).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


def test_everything_is_under_jobdb(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"jobdb", next(n for n in names if "dist-info" in n).split("/")[0]}
    for part in ("jobdb/cli/__init__.py", "jobdb/schema/sqlite/0001_initial.sql", "jobdb/py.typed"):
        assert part in names
    for top in ("jobdb", "cli", "schema"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in (".py", ".sql", ".json", ".html") and "__pycache__" not in path.parts:
                inside = path.relative_to(ROOT).as_posix()
                assert (inside if top == "jobdb" else f"jobdb/{inside}") in names


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "jobdb").rglob("__init__.py")}
    assert listed == found | {"jobdb.cli", "jobdb.schema"}


def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    run(tmp_path / "venv/bin/pip", "install", "-q", wheel, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    jobdb = tmp_path / "venv/bin/jobdb"
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    database = f"sqlite:///{tmp_path}/x/jobs.db"

    def call(*arguments: str) -> str:
        return run(jobdb, "--db", database, *arguments, cwd=elsewhere, **home)

    call("init")
    job = call("register", "--agent", "claude-code", "sort ten problems").strip()
    assert call("claim", "--agent", "claude-code", "--worker", "w1").strip() == job
    payload = json.loads(call("publish", job, "progress", "--attempt", "1", "--detail", "step 1", "--json"))
    assert (payload["seq"], payload["data"]["attempt"]) == (1, 1)
    shown = json.loads(call("show", job, "--json"))
    assert (shown["job_id"], shown["status"], shown["last_seq"]) == (job, "running", 1)
    other = call("register", "--agent", "codex", "sort").strip()
    call("work", "--agent", "codex", "--once", "--", "cat")
    assert json.loads(call("show", other, "--json"))["status"] == "completed"
    assert call("logs", other) == "sort"
