"""Test the commands init and migrate, and databases that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest


def test_a_first_session(cli_without_database: Any) -> None:
    """The first session of the help, with --db."""
    db = ("--db", f"sqlite:////{cli_without_database.folder}/x/jobs.db")
    cli_without_database(*db, "init")
    job = cli_without_database(*db, "register", "--agent", "codex", "sort ten problems").out.strip()
    assert cli_without_database(*db, "claim", "--agent", "codex").out == f"{job}\n"
    assert cli_without_database(*db, "publish", job, "progress", "--detail", "step 1", "--attempt", "1").out == "1\n"
    record = cli_without_database(*db, "show", job, "--json").json
    assert (record["job_id"], record["status"], record["attempt"], record["last_seq"]) == (job, "running", 1, 1)


def test_init_creates_a_private_database_once(cli_without_database: Any) -> None:
    first = cli_without_database("init", "--json")
    assert first.json == {"url": f"sqlite:///{cli_without_database.database}", "created": True, "shared": None}
    assert stat.S_IMODE(cli_without_database.database.stat().st_mode) == 0o600
    assert stat.S_IMODE(cli_without_database.database.parent.stat().st_mode) == 0o700
    job = cli_without_database.register()
    assert cli_without_database("init", "--json").json["created"] is False
    assert "exists already" in cli_without_database("init").err
    assert cli_without_database("show", job, "--json").json["job_id"] == job


def test_the_default_database_is_in_the_current_folder(cli_without_database: Any) -> None:
    del cli_without_database.env["JOBDB_URL"]
    cli_without_database("init")
    assert (cli_without_database.folder / ".jobdb" / "jobs.db").exists()
    assert cli_without_database("list").out == ""


def test_db_takes_precedence_over_the_environment(cli: Any) -> None:
    other = cli.folder / "other.db"
    cli("--db", other, "init")
    cli.register()
    assert cli("--db", other, "list").out == ""
    assert len(cli("list").lines) == 1


@pytest.mark.parametrize("command", [("list",), ("migrate",), ("claim",), ("register", "--agent", "a", "p")])
def test_a_missing_database_is_reported_with_the_command_that_creates_it(
    cli_without_database: Any, command: tuple[str, ...]
) -> None:
    done = cli_without_database(*command, code=5)
    assert str(cli_without_database.database) in done.err and "init" in done.err
    assert not cli_without_database.database.exists()


def test_a_folder_is_not_a_database(cli_without_database: Any) -> None:
    cli_without_database.database.mkdir(parents=True)
    assert "is a folder" in cli_without_database("list", code=5).err
    assert "is a folder" in cli_without_database("init", code=5).err


@pytest.mark.parametrize("content", [b"not a database at all\n" * 50, b"SQLite format 3\0" + b"\xff" * 4096, b"\0"])
def test_a_file_that_is_not_a_database_is_left_unchanged(cli_without_database: Any, content: bytes) -> None:
    cli_without_database.database.parent.mkdir(mode=0o700)
    cli_without_database.database.write_bytes(content)
    for command in (("list",), ("init",), ("migrate",)):
        cli_without_database(*command, code=5)
    assert cli_without_database.database.read_bytes() == content


def test_a_database_of_another_program_is_left_unchanged(cli_without_database: Any) -> None:
    cli_without_database.database.parent.mkdir(mode=0o700)
    connection = sqlite3.connect(cli_without_database.database)
    connection.executescript("PRAGMA application_id = 7; CREATE TABLE theirs (x); PRAGMA user_version = 1")
    connection.close()
    content = cli_without_database.database.read_bytes()
    for command in (("list",), ("init",), ("migrate",)):
        assert "another program" in cli_without_database(*command, code=5).err
    assert cli_without_database.database.read_bytes() == content


def test_a_damaged_database_is_reported_with_advice(cli: Any) -> None:
    for _ in range(3):
        cli.register()
    cli("prune", "--older-than", "1d")  # leaves one file, without a WAL
    content = bytearray(cli.database.read_bytes())
    content[4096 : len(content)] = os.urandom(len(content) - 4096)
    cli.database.write_bytes(content)
    assert "doctor" in cli("list", code=5).err


@pytest.mark.parametrize(("version", "advice"), [(9999, "upgrade"), (1, "migrate")])
def test_another_schema_is_refused_with_the_fix(cli: Any, version: int, advice: str) -> None:
    connection = sqlite3.connect(cli.database)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = cli.database.read_bytes()
    for command in (("list",), ("register", "--agent", "a", "p"), ("claim",)):
        assert advice in cli(*command, code=5).err
    assert cli.database.read_bytes() == before


def test_a_schema_from_the_future_is_not_migrated(cli: Any) -> None:
    connection = sqlite3.connect(cli.database)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    assert "9999" in cli("migrate", code=5).err


def test_migrating_a_current_database_does_nothing(cli: Any) -> None:
    done = cli("migrate", "--json").json
    assert done["backup"] is None and done["schema_version"] >= 1
    assert "schema version" in cli("migrate").err


def test_init_turns_an_empty_file_into_a_database(cli_without_database: Any) -> None:
    cli_without_database.database.parent.mkdir(mode=0o700)
    cli_without_database.database.touch(mode=0o600)
    assert "init" in cli_without_database("list", code=5).err
    cli_without_database("init")
    assert cli_without_database("list").out == ""


@pytest.mark.parametrize(
    ("url", "code"),
    [("", 2), ("mysql://x/y", 2), ("sqlite://", 2), ("sqlite:///", 2), ("sqlite:///a\nb/\x1b[31m.db", 5)],
)
def test_an_invalid_url(cli_without_database: Any, url: str, code: int) -> None:
    done = cli_without_database("--db", url, "list", code=code)
    assert "\x1b" not in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", [("list",), ("init",), ("migrate",)])
def test_the_password_in_a_url_is_not_repeated(cli_without_database: Any, command: tuple[str, ...]) -> None:
    done = cli_without_database("--db", "postgresql://user:hunter2secret@127.0.0.1:1/jobs", *command, code=5)
    assert "hunter2secret" not in done.err and "127.0.0.1" in done.err
    assert "can be read by every process" in done.err


def test_no_warning_for_a_url_without_a_password_or_from_the_environment(cli_without_database: Any) -> None:
    url = "postgresql://user:hunter2secret@127.0.0.1:1/jobs"
    for done in (
        cli_without_database("list", env={"JOBDB_URL": url}, code=5),
        cli_without_database("--db", "postgresql://user@127.0.0.1:1/jobs", "list", code=5),
    ):
        assert "warning" not in done.err
    assert "can be read" in cli_without_database("copy", cli_without_database.database, url, code=5).err
    assert (
        cli_without_database("--db", "postgresql:/user:hunter2secret@h/jobs", "list", code=2).err.count("hunter2secret")
        == 0
    )


def test_help_does_not_show_the_url_of_the_environment() -> None:
    from jobdb.cli.app import app
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["--help"], env={"JOBDB_URL": "postgresql://u:hunter2secret@h/d"})
    assert shown.exit_code == 0 and "hunter2secret" not in shown.output


def test_a_full_disk_is_reported_and_nothing_is_half_written(cli_without_database: Any, small_disk: Path) -> None:
    cli_without_database.env["JOBDB_URL"] = f"sqlite:///{small_disk}/jobs.db"
    cli_without_database("init")
    job = cli_without_database.register()
    done = cli_without_database("register", "--agent", "a", "--prompt-file", "-", input="x" * 800_000, code=5)
    assert "full" in done.err and done.out == ""
    assert [record["job_id"] for record in cli_without_database("list", "--json").json_lines] == [job]
    assert cli_without_database("publish", job, "progress").out == "1\n"


def test_init_on_a_full_disk_leaves_nothing_that_looks_like_a_database(
    cli_without_database: Any, small_disk: Path
) -> None:
    (small_disk / "filler").write_bytes(b"x" * 500_000)
    cli_without_database.env["JOBDB_URL"] = f"sqlite:///{small_disk}/jobs.db"
    assert "full" in cli_without_database("init", code=5).err
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    cli_without_database.env["JOBDB_URL"] = f"sqlite:///{small_disk}/new/below/jobs.db"
    assert "full" in cli_without_database("init", code=5).err
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "new").mkdir()
    (small_disk / "new" / "jobs.db").touch()
    cli_without_database.env["JOBDB_URL"] = f"sqlite:///{small_disk}/new/jobs.db"
    assert "full" in cli_without_database("init", code=5).err
    assert [path.name for path in (small_disk / "new").iterdir()] == ["jobs.db"]
    (small_disk / "filler").unlink()
    cli_without_database("init")
    cli_without_database.register()


def test_a_disk_without_room_for_the_shared_memory_is_reported_as_full(
    cli_without_database: Any, small_disk: Path
) -> None:
    """SQLite reports it as an I/O error."""
    cli_without_database.env["JOBDB_URL"] = f"sqlite:///{small_disk}/jobs.db"
    cli_without_database("init")
    assert not (small_disk / "jobs.db-shm").exists()
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(b"x" * (free - 4096))
    for command in (("list",), ("register", "--agent", "a", "p")):
        stderr = cli_without_database(*command, code=5).err
        assert "is full" in stderr and "Free space there" in stderr
    (small_disk / "filler").unlink()
    cli_without_database.register()


def test_a_folder_that_is_not_writable(cli_without_database: Any, small_disk: Path) -> None:
    cli_without_database.env["JOBDB_URL"] = f"sqlite:///{small_disk}/jobs.db"
    cli_without_database("init")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=30)
    for command in (("register", "--agent", "a", "p"), ("claim",), ("list",)):
        assert str(small_disk) in cli_without_database(*command, code=5).err
    cli_without_database.env["JOBDB_URL"] = f"sqlite:///{small_disk}/new/jobs.db"
    assert str(small_disk) in cli_without_database("init", code=5).err


def test_busy_is_reported_with_the_waiting_time(cli: Any) -> None:
    holder = sqlite3.connect(cli.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert "jobdb: " in cli("--busy-timeout", "0.3", "register", "--agent", "a", "p", code=4).err
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    cli.register()


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "x"])
def test_an_invalid_busy_timeout_is_refused(cli: Any, limit: str) -> None:
    cli("--busy-timeout", limit, "list", code=2)


def test_json_of_init_is_one_object_on_one_line(cli_without_database: Any) -> None:
    (line,) = cli_without_database("init", "--json").lines
    assert set(json.loads(line)) == {"url", "created", "shared"}


def test_a_short_wal_stays_for_the_next_command_and_a_long_one_is_copied(cli: Any) -> None:
    wal = cli.database.with_name(f"{cli.database.name}-wal")
    job = cli.register()
    cli("show", job)
    assert wal.stat().st_size > 0
    registry = cli.open_registry()
    registry.register(agent="codex", prompt="long " * 150_000, job_id="long")
    assert wal.stat().st_size > 512 * 1024
    registry.close(checkpoint=False)
    assert not wal.exists()
    assert cli("show", "long", "--json").json["prompt"] == "long " * 150_000


def test_restore_reports_what_it_undoes(cli: Any) -> None:
    job = cli.register()
    cli("backup", "saved.db")
    cli("token", "rotate", job)
    cli("token", "revoke", job, "1")
    asked = cli("restore", "saved.db", input="n\n", code=1).err
    assert "revoked or rotated since the backup will be valid again (1 token of 1 job)" in asked
    done = cli("restore", "saved.db", "--yes", "--json")
    assert "are valid again (1 token of 1 job); --revoke-since" in done.err and "may be accepted again" in done.err
    assert "another registry" in done.err
    assert done.json["since"] == {"tokens": 1, "jobs": 1, "jobs_gone": 0, "subscriptions": 0}
    assert done.json["revoked"] is False and done.json["same_registry"] is False and done.json["set_aside"] == []
    cli("restore", done.json["kept"], "--yes")
    again = cli("restore", "saved.db", "--yes", "--revoke-since", "--same-registry", "--json")
    assert again.json["revoked"] is True and again.json["same_registry"] is True
    assert "another registry" not in again.err and "revoked in the restored database too" in again.err
    assert [token["state"] for token in cli("token", "list", job, "--json").json_lines] == ["revoked"]
    cli.database.unlink()
    gone = cli("restore", "saved.db", "--yes", "--revoke-since")
    assert "warning: the revocations since the backup are unknown" in gone.err
    assert cli("doctor", "--full", "--json").json["ok"]


def test_a_backup_from_the_future_is_reported(cli: Any) -> None:
    cli.register()
    (cli.folder / "jobs-20990101T000000Z.db").write_bytes(b"there")
    done = cli("backup", "jobs.db", "--keep", "1", "--json")
    assert "in the future" in done.err and done.json["removed"] == []
    assert [path.rpartition("/")[2] for path in done.json["in_future"]] == ["jobs-20990101T000000Z.db"]
