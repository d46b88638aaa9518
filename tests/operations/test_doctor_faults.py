"""Each fault that is planted in the files is found, and the doctor's own advice mends it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobdb.schema import VERSION

House = Any
Require = Callable[[bool, str], None]


@pytest.fixture
def saved(house: House) -> Path:
    """A database with a few jobs, and a backup of it."""
    with house.registry() as registry:
        for number in range(40):
            job = registry.register(agent="codex", prompt=f"job {number} " * 40)
            registry.publish(job.job_id, "progress", detail="a step")
    backup = house.root / "saved.db"
    house.jobdb(f"backup {backup}")
    return backup


def on_file(house: House, sql: str, *values: object) -> list[Any]:
    """Does something to the closed database that jobdb would never do."""
    connection = sqlite3.connect(house.database, isolation_level=None)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def test_a_sound_registry_has_nothing_to_mend(house: House, saved: Path) -> None:
    report = house.doctor("--full").report
    assert report["ok"] and {finding["level"] for finding in report["findings"]} == {"ok"}, report
    assert all(finding["mend"] is None for finding in report["findings"])


def test_examining_makes_no_key(house: House) -> None:
    house.jobdb("init")
    house.doctor()
    assert not list((house.root / "home").rglob("master.key"))


@pytest.mark.parametrize(("what", "mode"), [("jobs.db", 0o644), ("jobs.db-wal", 0o660), ("", 0o755)])
def test_modes_that_let_others_in(house: House, saved: Path, what: str, mode: int) -> None:
    place = house.database.parent / what
    with house.registry() as registry:
        registry.register(agent="codex", prompt="so that there is a WAL")
        place.chmod(mode)
        diagnosis = house.doctor()
        assert diagnosis.found("file modes", "warn", f"{mode:04o}")["mend"].startswith("chmod ")
        diagnosis.mended("file modes")
    assert house.database.parent.stat().st_mode & 0o077 == 0


def test_a_key_file_that_others_may_read(house: House, saved: Path) -> None:
    (house.root / "home/.config/jobdb/master.key").chmod(0o644)
    house.doctor().mended("key file")


def test_a_file_of_another_user_beside_the_database(house: House, saved: Path, require: Require) -> None:
    require(os.geteuid() == 0, "only root can give files away")
    os.chown(f"{house.database}-gate", 65534, 65534)
    diagnosis = house.doctor()
    diagnosis.found("owner", "warn", "jobs.db-gate", "root")
    diagnosis.mended("owner")


def test_a_second_name_of_the_file(house: House, saved: Path) -> None:
    os.link(house.database, house.database.parent / "copy.db")
    advice = house.doctor().found("file", "fail", "2 names")["mend"]
    names = house.sh(advice).stdout.split()
    assert sorted(Path(name).name for name in names) == ["copy.db", "jobs.db"]
    (house.database.parent / "copy.db").unlink()
    house.doctor().is_ok("file")


def test_no_database(house: House) -> None:
    diagnosis = house.doctor()
    diagnosis.found("file", "fail", "no database")
    assert not house.database.exists()
    assert diagnosis.mended("file").report["ok"]


def test_an_empty_file(house: House) -> None:
    house.database.parent.mkdir(mode=0o700)
    house.database.touch(0o600)
    diagnosis = house.doctor()
    diagnosis.found("schema", "fail", "is empty")
    assert diagnosis.mended("schema").report["ok"]


def test_a_file_that_is_no_database(house: House, saved: Path) -> None:
    house.database.write_bytes(b"these are no pages\n" * 1000)
    diagnosis = house.doctor()
    diagnosis.found("file", "fail", "not a SQLite database")
    assert diagnosis.mended("file", BACKUP=saved).report["ok"]
    (kept,) = [path for path in house.database.parent.glob("jobs.db.replaced-*") if path.name.endswith("Z")]
    assert kept.read_bytes().startswith(b"these are no pages")


def test_a_database_of_another_program(house: House) -> None:
    house.database.parent.mkdir(mode=0o700)
    on_file(house, "CREATE TABLE theirs (x)")
    on_file(house, "PRAGMA application_id = 99")
    content = house.database.read_bytes()
    diagnosis = house.doctor()
    diagnosis.found("file", "fail", "another program")
    house.sh(diagnosis.of("file")[0]["mend"].replace("ANOTHER_FILE", str(house.root / "mine" / "jobs.db")))
    assert house.database.read_bytes() == content and (house.root / "mine" / "jobs.db").exists()


def test_an_older_schema(house: House) -> None:
    from jobdb.schema.migrations import MIGRATIONS
    from sqlite_utils import Database

    house.database.parent.mkdir(mode=0o700)
    house.database.touch(0o600)
    second = MIGRATIONS.pending(Database(sqlite3.connect(":memory:")))[1].name
    connection = sqlite3.connect(house.database, isolation_level=None)
    MIGRATIONS.apply(Database(connection), stop_before=second)
    connection.close()
    diagnosis = house.doctor()
    diagnosis.found("schema", "fail", "version 1", f"works with {VERSION}")
    assert diagnosis.mended("schema").report["ok"]
    assert len(list(house.database.parent.glob("jobs.db.v1-*.bak"))) == 1


def test_a_newer_schema(house: House, saved: Path) -> None:
    on_file(house, f"PRAGMA user_version = {VERSION + 1}")
    found = house.doctor().found("schema", "fail", f"version {VERSION + 1}")
    assert found["mend"] == "pip install --upgrade jobdb"  # whose jobdb would find its own version:
    on_file(house, f"PRAGMA user_version = {VERSION}")
    house.doctor().is_ok("schema")


def damage(house: House, table: str) -> None:
    """Overwrites a page of a table or index."""
    ((page,),) = on_file(house, "SELECT rootpage FROM sqlite_schema WHERE name = ?", table)
    with house.database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


@pytest.mark.parametrize("flags", ["", "--full"])
def test_a_damaged_page(house: House, saved: Path, flags: str) -> None:
    damage(house, "events")
    diagnosis = house.doctor(flags)
    diagnosis.found("integrity", "fail", "damaged")
    assert diagnosis.mended("integrity", BACKUP=saved).report["ok"]


def test_a_damaged_schema_page(house: House, saved: Path) -> None:
    with house.database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * 3000)
    diagnosis = house.doctor()
    bad = [finding for finding in diagnosis.report["findings"] if finding["level"] == "fail"]
    assert [finding["check"] for finding in bad] == ["open"], bad
    after = house.doctor(before=bad[0]["mend"].replace("BACKUP", str(saved)))
    assert after.report["ok"] and not after.of("open")


def test_an_index_that_differs_from_its_table(house: House, saved: Path) -> None:
    ((page,),) = on_file(house, "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_status'")
    with house.database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        content = file.read(4096)
        assert b"running" in content
        file.seek((page - 1) * 4096)
        file.write(content.replace(b"running", b"runninG", 1))
    house.doctor().is_ok("integrity")  # the quick check compares no index with its table
    diagnosis = house.doctor("--full")
    diagnosis.found("integrity", "fail", "jobs_by_status")
    assert diagnosis.mended("integrity", BACKUP=saved).report["ok"]


def test_a_row_that_refers_to_nothing(house: House, saved: Path) -> None:
    on_file(house, "DELETE FROM jobs WHERE id = 3")  # another program, without foreign keys
    diagnosis = house.doctor("--full")
    diagnosis.found("integrity", "fail", "refers to nothing in jobs")
    assert diagnosis.mended("integrity", BACKUP=saved).report["ok"]


KEEPS_READING = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM jobs").fetchone()
print("reading", flush=True)
time.sleep(100)
"""
KEEPS_LOCKED = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(100)
"""
DIES_IN_MID_COMMIT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE jobs SET detail = hex(randomblob(2000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(program: str, house: House) -> subprocess.Popen[str]:
    """Starts another program on the database; returns when it has said that it is there."""
    process = subprocess.Popen([sys.executable, "-c", program, str(house.database)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_a_wal_that_grows_behind_a_stalled_reader(house: House, saved: Path) -> None:
    reader = start(KEEPS_READING, house)
    try:
        with house.registry() as registry:
            registry.register(agent="codex", prompt="in passing")
            diagnosis = house.doctor()
            diagnosis.is_ok("wal")
            assert f"(pid {reader.pid}), which reads" in diagnosis.of("wal")[0]["message"]
            for number in range(60):
                registry.register(agent="codex", prompt=f"{number:1000}" * 100)
            diagnosis = house.doctor()
            found = diagnosis.found("wal", "warn", "MiB", f"(pid {reader.pid})")
            assert found["mend"] == f"kill {reader.pid}"
            diagnosis.mended("wal")
        assert reader.wait(timeout=30) == -signal.SIGTERM
    finally:
        reader.kill()
        reader.communicate(timeout=30)


def test_a_program_that_keeps_the_database_locked(house: House, saved: Path) -> None:
    holder = start(KEEPS_LOCKED, house)
    try:
        diagnosis = house.doctor()
        assert "--busy-timeout" in diagnosis.found("open", "fail", "locked")["mend"]
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    assert house.doctor().report["ok"]


def test_a_journal_that_a_dead_writer_left(house: House, saved: Path) -> None:
    on_file(house, "PRAGMA journal_mode = delete")
    on_file(house, "INSERT INTO settings (name, value) VALUES ('shared', '1')")
    before = on_file(house, "SELECT group_concat(detail) FROM jobs")
    subprocess.run([sys.executable, "-c", DIES_IN_MID_COMMIT, str(house.database)], timeout=60, check=False)
    journal = Path(f"{house.database}-journal")
    assert journal.stat().st_size > 0
    os.utime(journal, (journal.stat().st_mtime - 3600,) * 2)
    diagnosis = house.doctor("--full")
    assert diagnosis.report["ok"] and "rolled it back" in diagnosis.of("leftovers")[0]["message"]
    assert on_file(house, "SELECT group_concat(detail) FROM jobs") == before


def test_what_a_broken_off_restore_left(house: House, saved: Path) -> None:
    left = house.database.with_name("jobs.db.restoring")
    shutil.copyfile(saved, left)
    house.doctor().is_ok("leftovers")  # it may be going on
    os.utime(left, (left.stat().st_mtime - 7200,) * 2)
    diagnosis = house.doctor()
    diagnosis.found("leftovers", "warn", "jobs.db.restoring")
    diagnosis.mended("leftovers")
    assert not left.exists()


def test_a_restored_database_of_another_key_is_told_at_once(house: House) -> None:
    saved = house.root / "saved.db"
    house.jobdb(f"init && jobdb register --agent a x && jobdb backup {saved}")
    done = house.sh(f"XDG_CONFIG_HOME={house.root}/other jobdb restore {saved} --yes")
    assert done.returncode == 0 and "sealed under master key" in done.stderr and "no key is found here" in done.stderr
    house.doctor(before=f"export XDG_CONFIG_HOME={house.root}/other").found("master key", "fail")
    assert "sealed under" not in house.sh(f"jobdb restore {saved} --yes").stderr


def test_a_restore_that_made_revoked_tokens_valid_again(house: House, saved: Path) -> None:
    job = house.jobdb("list").split()[0]
    house.jobdb(f"token rotate {job}")
    house.jobdb(f"token revoke {job} 1")
    house.jobdb(f"restore {saved} --yes")
    diagnosis = house.doctor("--full")
    diagnosis.found("restore", "warn", "1 tokens", f"key 1 of {job}")
    diagnosis.mended("restore")


def test_a_restore_of_which_nothing_is_known(house: House, saved: Path) -> None:
    house.database.unlink()
    house.jobdb(f"restore {saved} --yes")
    diagnosis = house.doctor("--full")
    assert diagnosis.report["ok"] and "is not known" in diagnosis.of("restore")[0]["message"]


def test_a_missing_key(house: House, saved: Path) -> None:
    elsewhere = house.root / "key"
    (house.root / "home/.config/jobdb/master.key").rename(elsewhere)
    diagnosis = house.doctor()
    diagnosis.found("master key", "fail", "there is no master key")
    assert diagnosis.mended("master key", FILE_WITH_THE_KEY=elsewhere).report["ok"]


def test_another_key(house: House, saved: Path) -> None:
    key = house.root / "home/.config/jobdb/master.key"
    key.rename(house.root / "key")
    house.sh("umask 077; openssl rand -hex 32 > home/.config/jobdb/master.key || printf '%064d' 7 > " + str(key))
    diagnosis = house.doctor()
    diagnosis.found("master key", "fail", "under key", "found here")
    assert diagnosis.mended("master key", FILE_WITH_THE_KEY=house.root / "key").report["ok"]


def test_a_disk_that_is_nearly_full(house: House, require: Require) -> None:
    house.database.parent.mkdir(mode=0o700)
    mounted = house.sh(f"mount -t tmpfs -o size=40m,mode=700 jobdb-test {house.database.parent}").returncode == 0
    require(mounted, "mounting needs root")
    try:
        house.jobdb("init")
        found = house.doctor().found("disk", "warn", "MiB free")
        assert house.sh(found["mend"]).returncode == 0
        house.sh(f"mount -o remount,size=600m {house.database.parent}")
        house.doctor().is_ok("disk")
    finally:
        house.sh(f"umount -l {house.database.parent}")
