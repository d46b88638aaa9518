"""Test restores killed at any step: the old or the new registry is in place, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobdb import NewJob, Registry
from jobdb.operations.backup import back_up
from tests.support.processes import module_environment, python_module


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A database with a job that only its -wal holds, and a backup from before that job."""
    folder = tmp_path / "prepared"
    with Registry.open(folder / "db" / "jobs.db", create=True) as registry:
        registry.register_many(NewJob(agent="a", prompt="p" * 300, job_id=f"old{number}") for number in range(100))
        back_up(registry, folder / "saved.db")
    registry = Registry.open(folder / "db" / "jobs.db")
    registry.register(agent="a", prompt="p", job_id="precious")
    registry.close(checkpoint=False)
    assert (folder / "db" / "jobs.db-wal").stat().st_size > 0
    return folder


def run(prepared: Path, way: str) -> list[dict[str, Any]]:
    work = prepared.with_name("work")
    work.mkdir()
    done = subprocess.run(
        python_module("tests.operations.restore_program", prepared, work, way),
        env=module_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [line for line in found if "error" in line], found
    assert found[-1]["after"] == "end" and sum(line["after"] == "kill" for line in found) >= 3
    return found


@pytest.mark.parametrize("way", ["exchange", "link"])
def test_a_healthy_database_is_either_intact_or_replaced(prepared: Path, way: str) -> None:
    """Both with an atomic exchange of names, and on a file system without it."""
    new = sorted(f"old{number}" for number in range(100))
    old = sorted([*new, "precious"])
    for line in run(prepared, way):
        assert line["database"] in (old, new)
        assert old in [line["database"], *line["kept"]]
        if line["after"] != "kill":
            assert line["database"] == new and line["scratch"] == 0
        if way == "exchange" or line["after"] != "kill":
            assert line["names"] == 1


@pytest.mark.parametrize("way", ["exchange", "link", "rename"])
def test_a_damaged_database_is_kept_with_its_journals(prepared: Path, way: str) -> None:
    """In the last way, and without hard links, the name may be missing in between."""
    database, wal = prepared / "db" / "jobs.db", prepared / "db" / "jobs.db-wal"
    content = bytearray(database.read_bytes())
    content[16384:-4096] = os.urandom(len(content) - 16384 - 4096)
    database.write_bytes(content)
    was = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (database, wal)}
    new = sorted(f"old{number}" for number in range(100))
    for line in run(prepared, way):
        assert was <= set(line["digests"])
        assert line["database"] in (new, "damaged", *(["missing"] if way == "rename" else []))
        if line["after"] != "kill":
            assert line["database"] == new and line["scratch"] == 0


def test_a_stale_wal_is_never_replayed_into_a_new_database(prepared: Path) -> None:
    (prepared / "db" / "jobs.db").unlink()
    wal = hashlib.sha256((prepared / "db" / "jobs.db-wal").read_bytes()).hexdigest()
    new = sorted(f"old{number}" for number in range(100))
    for line in run(prepared, "exchange"):
        assert line["database"] in (new, "missing")
        assert wal in line["digests"]
        if line["after"] != "kill":
            assert line["database"] == new and line["scratch"] == 0
