"""Test that folders and files are created private, and that others are reported with the command that fixes them."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from jobdb.errors import StorageFailed
from jobdb.filesystem.mode_report import check_modes, file_warning, folder_warning
from jobdb.filesystem.permissions import create_companion, create_private_file, make_private_folder, match_owner
from tests.support.requirements import needs


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def umask_zero() -> Iterator[None]:
    """Clear the umask, so that only jobdb's own arguments make files private."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    private = tmp_path / "store"
    private.mkdir(mode=0o700)
    return private


def test_every_created_folder_is_private(tmp_path: Path, umask_zero: None) -> None:
    made = make_private_folder(tmp_path / "a" / "b" / "c")
    assert made == [str(tmp_path / "a" / "b" / "c"), str(tmp_path / "a" / "b"), str(tmp_path / "a")]
    assert make_private_folder(tmp_path / "a" / "b") == []
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    make_private_folder(shared)
    assert mode(shared) == 0o750


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StorageFailed, match=r"store: a file has that name"):
        make_private_folder(tmp_path / "store" / "below")


def test_sqlite_creates_its_companion_files_with_the_private_mode(folder: Path, umask_zero: None) -> None:
    database = folder / "jobs.db"
    assert create_private_file(database) is True
    assert mode(database) == 0o600
    connection = apsw.Connection(str(database))
    try:
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t(x)")
        assert mode(f"{database}-wal") == 0o600
        assert mode(f"{database}-shm") == 0o600
        assert check_modes(database) == []
    finally:
        connection.close()


def test_an_existing_file_is_left_unchanged(folder: Path) -> None:
    database = folder / "jobs.db"
    database.write_bytes(b"content")
    database.chmod(0o640)
    assert create_private_file(database) is False
    assert database.read_bytes() == b"content"
    assert mode(database) == 0o640


def test_a_dangling_link_gets_a_private_target(folder: Path, umask_zero: None) -> None:
    (folder / "link.db").symlink_to(folder / "real.db")
    assert create_private_file(folder / "link.db") is True
    assert mode(folder / "real.db") == 0o600


def test_a_missing_folder_is_an_error_with_the_path(folder: Path) -> None:
    with pytest.raises(StorageFailed, match="missing"):
        create_private_file(folder / "missing" / "jobs.db")


def test_one_of_many_processes_creates_the_file(folder: Path) -> None:
    program = (
        "import sys\nfrom jobdb.filesystem.permissions import create_private_file\n"
        "sys.stdin.read()\nprint(create_private_file(sys.argv[1]))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder / "jobs.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.close()
        racer.stdin = None
    answers = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)
    assert answers == ["False", "False", "False", "True"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", "-gate"])
def test_each_exposed_file_is_found_and_the_command_fixes_it(folder: Path, suffix: str) -> None:
    database = folder / "it's jobs.db"
    for each in ("", "-wal", "-shm", "-journal", "-gate"):
        create_private_file(f"{database}{each}")
    os.chmod(f"{database}{suffix}", 0o644)
    [warning] = check_modes(database)
    assert f"{database}{suffix}" in warning
    assert "0644" in warning
    command = warning.split("fix it with: ")[1]
    subprocess.run(shlex.split(command), check=True, timeout=30)
    assert mode(f"{database}{suffix}") == 0o600
    assert check_modes(database) == []


def test_the_files_beside_a_links_target_are_the_ones_checked(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    create_private_file(elsewhere / "real.db")
    create_private_file(elsewhere / "real.db-wal")
    os.chmod(elsewhere / "real.db-wal", 0o666)
    (folder / "link.db").symlink_to(elsewhere / "real.db")
    [warning] = check_modes(folder / "link.db")
    assert "real.db-wal" in warning


def test_an_exposed_folder_is_found_and_the_command_fixes_it(folder: Path) -> None:
    folder.chmod(0o755)
    [warning] = check_modes(folder / "jobs.db")
    assert warning.endswith(f"chmod 700 {folder}")
    subprocess.run(shlex.split(warning.split("fix it with: ")[1]), check=True, timeout=30)
    assert check_modes(folder / "jobs.db") == []


def test_the_working_folder_may_be_entered_but_not_written_by_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    folder.chmod(0o755)
    assert check_modes("jobs.db") == []
    folder.chmod(0o775)
    [warning] = check_modes("jobs.db")
    assert "chmod go-w" in warning


def test_a_sticky_folder_such_as_tmp_causes_no_warning(folder: Path) -> None:
    folder.chmod(0o1777)
    assert folder_warning(folder) is None


def test_missing_files_cause_no_warning(folder: Path) -> None:
    assert file_warning(folder / "nothing") is None
    assert folder_warning(folder / "nothing") is None


def test_checking_releases_no_lock_of_this_process(folder: Path) -> None:
    """POSIX drops a process's locks on a file when any descriptor of it is closed, so none may be opened."""
    database = folder / "jobs.db"
    create_private_file(database)
    connection = apsw.Connection(str(database))
    try:
        connection.execute("CREATE TABLE t(x)")
        connection.execute("BEGIN EXCLUSIVE")
        check_modes(database)
        assert create_private_file(database) is False
        program = (
            "import apsw, sys\n"
            "try: apsw.Connection(sys.argv[1]).execute('BEGIN IMMEDIATE'); print('unlocked')\n"
            "except apsw.BusyError: print('locked')"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, str(database)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert other.stdout.strip() == "locked"
    finally:
        connection.close()


def test_a_file_beside_a_database_has_the_databases_mode(folder: Path, umask_zero: None) -> None:
    database = folder / "jobs.db"
    assert create_companion(folder / "other.db-gate", folder / "other.db") and mode(folder / "other.db-gate") == 0o600
    database.touch(mode=0o660)
    assert create_companion(f"{database}-gate", database) and mode(f"{database}-gate") == 0o660
    assert not create_companion(f"{database}-gate", database)
    (folder / "link").symlink_to(folder / "nowhere")
    assert not create_companion(folder / "link", database) and not (folder / "nowhere").exists()


@needs(os.geteuid() == 0, "giving a file to another user needs root")
def test_root_gives_the_owner_only_the_files_that_it_created(folder: Path) -> None:
    """The owner of the folder may replace a new file by a hard link to a file of root."""
    os.chown(folder, 12345, 12346)
    secret = folder.parent / "secret"
    secret.touch(mode=0o600)
    os.link(secret, folder / "planted")
    (folder / "link").symlink_to(secret)
    match_owner(folder / "planted", folder)
    match_owner(folder / "link", folder)
    assert secret.stat().st_uid == 0
    os.unlink(folder / "planted")
    for made in (create_private_file(folder / "jobs.db"), make_private_folder(folder / "a" / "b")):
        assert made
    for path in (folder / "jobs.db", folder / "a", folder / "a" / "b"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
