"""Test that each fault planted in the files is found, and that the doctor's own advice fixes it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jobdb.schema import SCHEMA_VERSION

from tests.support.disks import resize_disk, small_disk
from tests.support.requirements import require_root
from tests.support.workspace import Workspace


@pytest.fixture
def saved(workspace: Workspace) -> Path:
    """A database with a few jobs, and a backup of it."""
    with workspace.registry() as registry:
        for number in range(40):
            job = registry.register(agent="codex", prompt=f"job {number} " * 40)
            registry.publish(job.job_id, "progress", detail="a step")
    backup = workspace.root / "saved.db"
    workspace.jobdb(f"backup {backup}")
    return backup


def execute_sql(workspace: Workspace, sql: str, *values: object) -> list[Any]:
    """Change the closed database in a way that jobdb never does."""
    connection = sqlite3.connect(workspace.database, isolation_level=None)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def test_a_healthy_registry_has_nothing_to_fix(workspace: Workspace, saved: Path) -> None:
    report = workspace.doctor("--full").report
    assert report["ok"] and {finding["level"] for finding in report["findings"]} == {"ok"}, report
    assert all(finding["fix"] is None for finding in report["findings"])


def test_the_doctor_creates_no_key(workspace: Workspace) -> None:
    workspace.jobdb("init")
    workspace.doctor()
    assert not list((workspace.root / "home").rglob("master.key"))


@pytest.mark.parametrize(("what", "mode"), [("jobs.db", 0o644), ("jobs.db-wal", 0o660), ("", 0o755)])
def test_modes_that_give_others_access(workspace: Workspace, saved: Path, what: str, mode: int) -> None:
    place = workspace.database.parent / what
    with workspace.registry() as registry:
        registry.register(agent="codex", prompt="so that there is a WAL")
        place.chmod(mode)
        diagnosis = workspace.doctor()
        assert diagnosis.found("file modes", "warn", f"{mode:04o}")["fix"].startswith("chmod ")
        diagnosis.apply_advice("file modes")
    assert workspace.database.parent.stat().st_mode & 0o077 == 0


def test_a_key_file_that_others_may_read(workspace: Workspace, saved: Path) -> None:
    (workspace.root / "home/.config/jobdb/master.key").chmod(0o644)
    workspace.doctor().apply_advice("key file")


def test_a_file_of_another_user_beside_the_database(workspace: Workspace, saved: Path) -> None:
    require_root("giving a file to another user")
    os.chown(f"{workspace.database}-gate", 65534, 65534)
    diagnosis = workspace.doctor()
    diagnosis.found("owner", "warn", "jobs.db-gate", "root")
    diagnosis.apply_advice("owner")


def test_a_hard_link_to_the_file(workspace: Workspace, saved: Path) -> None:
    os.link(workspace.database, workspace.database.parent / "copy.db")
    advice = workspace.doctor().found("file", "fail", "2 names")["fix"]
    names = workspace.sh(advice).stdout.split()
    assert sorted(Path(name).name for name in names) == ["copy.db", "jobs.db"]
    (workspace.database.parent / "copy.db").unlink()
    workspace.doctor().expect_ok("file")


def test_no_database(workspace: Workspace) -> None:
    diagnosis = workspace.doctor()
    diagnosis.found("file", "fail", "no database")
    assert not workspace.database.exists()
    assert diagnosis.apply_advice("file").report["ok"]


def test_an_empty_file(workspace: Workspace) -> None:
    workspace.database.parent.mkdir(mode=0o700)
    workspace.database.touch(0o600)
    diagnosis = workspace.doctor()
    diagnosis.found("schema", "fail", "is empty")
    assert diagnosis.apply_advice("schema").report["ok"]


def test_a_file_that_is_not_a_database_is_reported(workspace: Workspace, saved: Path) -> None:
    workspace.database.write_bytes(b"these are no pages\n" * 1000)
    diagnosis = workspace.doctor()
    diagnosis.found("file", "fail", "not a SQLite database")
    assert diagnosis.apply_advice("file", BACKUP=saved).report["ok"]
    (kept,) = [path for path in workspace.database.parent.glob("jobs.db.replaced-*") if path.name.endswith("Z")]
    assert kept.read_bytes().startswith(b"these are no pages")


def test_a_database_of_another_program(workspace: Workspace) -> None:
    workspace.database.parent.mkdir(mode=0o700)
    execute_sql(workspace, "CREATE TABLE theirs (x)")
    execute_sql(workspace, "PRAGMA application_id = 99")
    content = workspace.database.read_bytes()
    diagnosis = workspace.doctor()
    diagnosis.found("file", "fail", "another program")
    workspace.sh(diagnosis.of("file")[0]["fix"].replace("ANOTHER_FILE", str(workspace.root / "mine" / "jobs.db")))
    assert workspace.database.read_bytes() == content and (workspace.root / "mine" / "jobs.db").exists()


def test_an_older_schema(workspace: Workspace) -> None:
    from jobdb.schema.migrations import MIGRATIONS
    from sqlite_utils import Database

    workspace.database.parent.mkdir(mode=0o700)
    workspace.database.touch(0o600)
    second = MIGRATIONS.pending(Database(sqlite3.connect(":memory:")))[1].name
    connection = sqlite3.connect(workspace.database, isolation_level=None)
    MIGRATIONS.apply(Database(connection), stop_before=second)
    connection.close()
    diagnosis = workspace.doctor()
    diagnosis.found("schema", "fail", "version 1", f"works with {SCHEMA_VERSION}")
    assert diagnosis.apply_advice("schema").report["ok"]
    assert len(list(workspace.database.parent.glob("jobs.db.v1-*.bak"))) == 1


def test_a_newer_schema(workspace: Workspace, saved: Path) -> None:
    execute_sql(workspace, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    found = workspace.doctor().found("schema", "fail", f"version {SCHEMA_VERSION + 1}")
    assert found["fix"] == "pip install --upgrade jobdb"  # whose jobdb would find its own version:
    execute_sql(workspace, f"PRAGMA user_version = {SCHEMA_VERSION}")
    workspace.doctor().expect_ok("schema")


def damage(workspace: Workspace, table: str) -> None:
    """Overwrite a page of a table or index."""
    ((page,),) = execute_sql(workspace, "SELECT rootpage FROM sqlite_schema WHERE name = ?", table)
    with workspace.database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


@pytest.mark.parametrize("flags", ["", "--full"])
def test_a_damaged_page(workspace: Workspace, saved: Path, flags: str) -> None:
    damage(workspace, "events")
    diagnosis = workspace.doctor(flags)
    diagnosis.found("integrity", "fail", "damaged")
    assert diagnosis.apply_advice("integrity", BACKUP=saved).report["ok"]


def test_a_damaged_schema_page(workspace: Workspace, saved: Path) -> None:
    with workspace.database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3000)
    diagnosis = workspace.doctor()
    bad = [finding for finding in diagnosis.report["findings"] if finding["level"] == "fail"]
    assert [finding["check"] for finding in bad] == ["open"], bad
    after = workspace.doctor(before=bad[0]["fix"].replace("BACKUP", str(saved)))
    assert after.report["ok"] and not after.of("open")


def test_an_index_that_differs_from_its_table(workspace: Workspace, saved: Path) -> None:
    ((page,),) = execute_sql(workspace, "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_status'")
    with workspace.database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        content = file.read(4096)
        assert b"running" in content
        file.seek((page - 1) * 4096)
        file.write(content.replace(b"running", b"runninG", 1))
    workspace.doctor().expect_ok("integrity")  # the quick check compares no index with its table
    diagnosis = workspace.doctor("--full")
    diagnosis.found("integrity", "fail", "jobs_by_status")
    assert diagnosis.apply_advice("integrity", BACKUP=saved).report["ok"]


def test_a_row_with_a_dangling_reference(workspace: Workspace, saved: Path) -> None:
    execute_sql(workspace, "DELETE FROM jobs WHERE id = 3")  # another program, without foreign keys
    diagnosis = workspace.doctor("--full")
    diagnosis.found("integrity", "fail", "refers to nothing in jobs")
    assert diagnosis.apply_advice("integrity", BACKUP=saved).report["ok"]


HOLD_READ_TRANSACTION = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM jobs").fetchone()
print("reading", flush=True)
time.sleep(100)
"""
HOLD_WRITE_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(100)
"""
CRASH_MID_COMMIT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE jobs SET detail = hex(randomblob(2000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(program: str, workspace: Workspace) -> subprocess.Popen[str]:
    """Start another program on the database; return when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(workspace.database)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_a_wal_that_grows_behind_a_stalled_reader(workspace: Workspace, saved: Path) -> None:
    reader = start(HOLD_READ_TRANSACTION, workspace)
    try:
        with workspace.registry() as registry:
            registry.register(agent="codex", prompt="in passing")
            diagnosis = workspace.doctor()
            diagnosis.expect_ok("wal")
            assert f"(pid {reader.pid}), which is reading" in diagnosis.of("wal")[0]["message"]
            for number in range(60):
                registry.register(agent="codex", prompt=f"{number:1000}" * 100)
            diagnosis = workspace.doctor()
            found = diagnosis.found("wal", "warn", "MiB", f"(pid {reader.pid})")
            assert found["fix"] == f"kill {reader.pid}"
            diagnosis.apply_advice("wal")
        assert reader.wait(timeout=30) == -signal.SIGTERM
    finally:
        reader.kill()
        reader.communicate(timeout=30)


def test_a_program_that_keeps_the_database_locked(workspace: Workspace, saved: Path) -> None:
    holder = start(HOLD_WRITE_LOCK, workspace)
    try:
        diagnosis = workspace.doctor()
        assert "--busy-timeout" in diagnosis.found("open", "fail", "locked")["fix"]
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    assert workspace.doctor().report["ok"]


def test_a_journal_left_by_a_dead_writer(workspace: Workspace, saved: Path) -> None:
    execute_sql(workspace, "PRAGMA journal_mode = delete")
    execute_sql(workspace, "INSERT INTO settings (name, value) VALUES ('shared', '1')")
    before = execute_sql(workspace, "SELECT group_concat(detail) FROM jobs")
    subprocess.run([sys.executable, "-c", CRASH_MID_COMMIT, str(workspace.database)], timeout=60, check=False)
    journal = Path(f"{workspace.database}-journal")
    assert journal.stat().st_size > 0
    os.utime(journal, (journal.stat().st_mtime - 3600,) * 2)
    diagnosis = workspace.doctor("--full")
    assert diagnosis.report["ok"] and "rolled it back" in diagnosis.of("leftovers")[0]["message"]
    assert execute_sql(workspace, "SELECT group_concat(detail) FROM jobs") == before


def test_leftovers_of_an_interrupted_restore(workspace: Workspace, saved: Path) -> None:
    left = workspace.database.with_name("jobs.db.restoring")
    shutil.copyfile(saved, left)
    workspace.doctor().expect_ok("leftovers")  # the restore may still be running
    os.utime(left, (left.stat().st_mtime - 7200,) * 2)
    diagnosis = workspace.doctor()
    diagnosis.found("leftovers", "warn", "jobs.db.restoring")
    diagnosis.apply_advice("leftovers")
    assert not left.exists()


def test_a_database_restored_under_another_key_is_reported_at_once(workspace: Workspace) -> None:
    saved = workspace.root / "saved.db"
    workspace.jobdb(f"init && jobdb register --agent a x && jobdb backup {saved}")
    done = workspace.sh(f"XDG_CONFIG_HOME={workspace.root}/other jobdb restore {saved} --yes")
    assert done.returncode == 0
    assert "encrypted under master key" in done.stderr and "there is no key here" in done.stderr
    workspace.doctor(before=f"export XDG_CONFIG_HOME={workspace.root}/other").found("master key", "fail")
    assert "encrypted under" not in workspace.sh(f"jobdb restore {saved} --yes").stderr


def test_a_restore_that_made_revoked_tokens_valid_again(workspace: Workspace, saved: Path) -> None:
    job = workspace.jobdb("list").split()[0]
    workspace.jobdb(f"token rotate {job}")
    workspace.jobdb(f"token revoke {job} 1")
    workspace.jobdb(f"restore {saved} --yes")
    diagnosis = workspace.doctor("--full")
    diagnosis.found("restore", "warn", "1 tokens", f"key 1 of {job}")
    diagnosis.apply_advice("restore")


def test_a_restore_without_a_record_of_what_it_replaced(workspace: Workspace, saved: Path) -> None:
    workspace.database.unlink()
    workspace.jobdb(f"restore {saved} --yes")
    diagnosis = workspace.doctor("--full")
    assert diagnosis.report["ok"] and "is not known" in diagnosis.of("restore")[0]["message"]


def test_a_missing_key(workspace: Workspace, saved: Path) -> None:
    elsewhere = workspace.root / "key"
    (workspace.root / "home/.config/jobdb/master.key").rename(elsewhere)
    diagnosis = workspace.doctor()
    diagnosis.found("master key", "fail", "there is no master key")
    assert diagnosis.apply_advice("master key", FILE_WITH_THE_KEY=elsewhere).report["ok"]


def test_another_key(workspace: Workspace, saved: Path) -> None:
    key = workspace.root / "home/.config/jobdb/master.key"
    key.rename(workspace.root / "key")
    workspace.sh("umask 077; openssl rand -hex 32 > home/.config/jobdb/master.key || printf '%064d' 7 > " + str(key))
    diagnosis = workspace.doctor()
    diagnosis.found("master key", "fail", "under key", "found here")
    assert diagnosis.apply_advice("master key", FILE_WITH_THE_KEY=workspace.root / "key").report["ok"]


def test_a_nearly_full_disk(workspace: Workspace) -> None:
    with small_disk(workspace.database.parent, 40 << 10) as disk:
        workspace.jobdb("init")
        found = workspace.doctor().found("disk", "warn", "MiB free")
        assert workspace.sh(found["fix"]).returncode == 0
        resize_disk(disk, "600m")
        workspace.doctor().expect_ok("disk")
