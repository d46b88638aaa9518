"""Test links, pipes and others' files in the places where jobdb or SQLite would write: none is written to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobdb import StorageFailed, Unusable
from jobdb.engines.sqlite import open_files, shared_mark
from jobdb.engines.sqlite.migrations import migrate
from jobdb.filesystem.unsafe_files import open_private_file
from tests.support.registries import open_registry
from tests.support.requirements import require_root

SUFFIXES = ("-gate", "-wal", "-shm", "-journal")
VICTIM_CONTENT = b"ssh-ed25519 AAAA me@laptop\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "authorized_keys"
    path.write_bytes(VICTIM_CONTENT)
    return path


@pytest.fixture
def database(database: Path) -> Path:
    """A registry without companion files."""
    for suffix in SUFFIXES:
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    return database


def link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def dangling(place: Path, victim: Path) -> None:
    place.symlink_to(victim.with_name("made-through-the-link"))


def hard_link(place: Path, victim: Path) -> None:
    os.link(victim, place)


def pipe(place: Path, _precious: Path) -> None:
    os.mkfifo(place)


def folder(place: Path, _precious: Path) -> None:
    place.mkdir()


def foreign_owner(place: Path, victim: Path) -> None:
    require_root("giving a file to another user")
    shutil.copy(victim, place)
    os.chown(place, 65533, 65533)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("plant", [link, dangling, hard_link, pipe, folder, foreign_owner])
def test_files_planted_beside_a_database_are_not_written_to(
    database: Path, victim: Path, plant: Callable[[Path, Path], None], suffix: str
) -> None:
    place = Path(f"{database}{suffix}")
    plant(place, victim)
    ways: list[Callable[[], object]] = [
        lambda: open_registry(database),
        lambda: open_registry(database, create=True),
        lambda: migrate(database),
        lambda: shared_mark.set_shared(database, True),
    ]
    for way in ways:
        with pytest.raises(StorageFailed, match="so nothing was written to it"):
            way()
    assert victim.read_bytes() == VICTIM_CONTENT
    assert sorted(os.listdir(victim.parent)) == ["authorized_keys", "private"]
    assert not open_files.list_open()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_new_database_is_not_created_beside_a_link(tmp_path: Path, victim: Path, suffix: str) -> None:
    database = tmp_path / "new" / "jobs.db"
    database.parent.mkdir(mode=0o700)
    Path(f"{database}{suffix}").symlink_to(victim)
    with pytest.raises(StorageFailed):
        open_registry(database, create=True)
    assert not database.exists()
    assert victim.read_bytes() == VICTIM_CONTENT


def test_files_of_a_group_that_shares_the_database_are_accepted(database: Path) -> None:
    require_root("giving a file to another user")
    os.chown(database, 65532, 65533)
    database.chmod(0o660)
    gate = Path(f"{database}-gate")
    gate.touch(0o600)
    os.chown(gate, 65531, 65533)
    with pytest.warns(UserWarning, match="0660"), open_registry(database) as registry:
        assert registry.jobs() == []
    database.chmod(0o600)
    with pytest.raises(StorageFailed, match="another user"):
        open_registry(database)


def test_a_private_file_is_not_opened_through_a_link(tmp_path: Path, victim: Path) -> None:
    fd = open_private_file(tmp_path / "made", os.O_RDWR | os.O_CREAT)
    assert os.fstat(fd).st_mode & 0o777 == 0o600 and not os.get_inheritable(fd)
    os.close(fd)
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(StorageFailed, match="symbolic link"):
        open_private_file(tmp_path / "link", os.O_RDWR)
    with pytest.raises(FileNotFoundError):
        open_private_file(tmp_path / "none", os.O_RDWR)


@pytest.mark.parametrize("place", ["/dev/null", "/proc/version", "/proc/self/fd/0", "/sys/kernel", "pipe", "folder"])
@pytest.mark.parametrize("create", [False, True])
def test_a_path_that_is_not_a_regular_file_is_refused(tmp_path: Path, place: str, create: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unusable):
        open_registry(tmp_path / place, create=create)
    if create:
        with pytest.raises(Unusable):
            migrate(tmp_path / place)
