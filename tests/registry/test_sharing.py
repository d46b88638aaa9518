"""Test the shared mark and the journal mode when it is set or cleared while processes have the file open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobdb import Busy, Registry, UnsafeFileSystem
from jobdb.engines.sqlite import shared_mark
from jobdb.engines.sqlite.header import read_header
from jobdb.engines.sqlite.shared_mark import is_shared, set_shared

WORKER = """
import sys
from jobdb import Registry, UnsafeFileSystem
registry = Registry.open(sys.argv[1])
registry.register(agent="a", prompt="", job_id="before")
registry.get("before")
print(registry.engine.store.journal, flush=True)
sys.stdin.readline()
for verb in (lambda: registry.get("before"), lambda: registry.register(agent="a", prompt="", job_id="after")):
    try:
        verb()
        print("went on", flush=True)
    except UnsafeFileSystem as error:
        print(error, flush=True)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.db"
    Registry.open(path, create=True).close()
    return path


def test_setting_and_clearing_the_mark_changes_the_journal(database: Path) -> None:
    set_shared(database, True)
    assert is_shared(database) and not read_header(database).wal
    with Registry.open(database) as registry:
        assert registry.engine.store.describe().endswith("journal delete")
    set_shared(database, False)
    with Registry.open(database) as registry:
        assert registry.engine.store.describe().endswith("journal wal")


def test_setting_the_mark_waits_for_processes_that_use_wal(database: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin and holder.stdout and holder.stdout.readline() == "wal\n"
    with pytest.raises(Busy, match="another process"):
        set_shared(database, True, busy_sec=0.2)
    assert not is_shared(database)
    holder.communicate("\n", timeout=60)


def test_a_process_with_a_rollback_journal_does_not_switch_to_wal(database: Path) -> None:
    set_shared(database, True)
    holder = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin and holder.stdout and holder.stdout.readline() == "delete\n"
    set_shared(database, False)
    with Registry.open(database) as registry:
        assert read_header(database).wal is True
        output, _ = holder.communicate("\n", timeout=60)
        assert output.count("was put into WAL mode") == 2 and "went on" not in output
        assert [job.job_id for job in registry.jobs()] == ["before"]


def test_a_mark_set_during_opening_wins(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_shared(database, True)
    set_shared(database, False)
    assert not read_header(database).wal

    def too_late(path: Path) -> bool:
        before = is_shared(path)
        set_shared(path, True)
        return before

    monkeypatch.setattr(shared_mark, "is_shared", too_late)
    with Registry.open(database) as registry:
        assert registry.engine.store.describe().endswith("journal delete")
        registry.register(agent="a", prompt="")
    assert not read_header(database).wal


def test_no_mark_is_set_where_locks_do_not_work(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise UnsafeFileSystem(f"{path.parent} has no locks")

    monkeypatch.setattr(shared_mark, "check_placement", refused)
    with pytest.raises(UnsafeFileSystem):
        set_shared(database, True)
    assert not is_shared(database)
