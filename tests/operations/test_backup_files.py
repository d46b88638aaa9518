"""Test which files a backup creates, replaces and removes, and which it never touches."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobdb import AlreadyExists, InvalidInput, Registry, StorageFailed, Unusable
from jobdb.operations import backup as backup_module
from jobdb.operations.backup import Backup, back_up
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url
from tests.support.threads import run_in_threads


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "db" / "jobs.db", create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="one")
        yield registry


@pytest.fixture
def saved(tmp_path: Path, registry: Registry) -> Path:
    folder = tmp_path / "saved"
    folder.mkdir(mode=0o700)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- keep


@pytest.mark.parametrize("stem", ["jobs", "[j]obs", "j*", "jo?s", "a-b [1]"])
def test_keep_removes_backups_of_exactly_its_name(saved: Path, registry: Registry, stem: str) -> None:
    others = [
        "jobs-2-20200101T000000Z.db",
        "jobs-20200101T000000Z-20200101T000000Z.db",
        "jobs-20200101T000000Z.db.gz",
        "jobs-20200101T000000Z",
        "jobs-20200101T00000Z.db",
        "jobsx20200101T000000Z.db",
        "my-jobs-20200101T000000Z.db",
        "jobs-notes.db",
    ]
    for name in others:
        (saved / name).write_bytes(b"not one of them")
    if stem != "jobs":
        (saved / "jobs-20200101T000000Z.db").write_bytes(b"of another name")
    (saved / f"{stem}-20200102T000000Z.db").symlink_to(saved / "jobs-notes.db")
    (saved / f"{stem}-20200103T000000Z.db").mkdir()
    before = names(saved)
    (saved / f"{stem}-20200104T000000Z.db").write_bytes(b"old")
    (saved / f"{stem}-20200104T000000Z-10.db").write_bytes(b"old")
    (saved / f"{stem}-20200104T000000Z-9.db").write_bytes(b"old")
    done = back_up(registry, saved / f"{stem}.db", keep=2)
    assert [path.name for path in done.removed] == [f"{stem}-20200104T000000Z.db", f"{stem}-20200104T000000Z-9.db"]
    assert names(saved) == sorted([*before, f"{stem}-20200104T000000Z-10.db", done.path.name])


def test_backups_dated_in_the_future_are_neither_removed_nor_counted(saved: Path, registry: Registry) -> None:
    """So it is after a clock was ahead for a while: the newest real backups stay."""
    for stamp in ("20200101T000000Z", "20200102T000000Z", "20360101T000000Z", "20360102T000000Z"):
        (saved / f"jobs-{stamp}.db").write_bytes(b"there")
    done = back_up(registry, saved / "jobs.db", keep=2)
    assert [path.name for path in done.removed] == ["jobs-20200101T000000Z.db"]
    assert [path.name for path in done.in_future] == ["jobs-20360101T000000Z.db", "jobs-20360102T000000Z.db"]
    assert done.as_dict()["in_future"] == [str(path) for path in done.in_future]
    assert names(saved) == sorted(
        ["jobs-20200102T000000Z.db", "jobs-20360101T000000Z.db", "jobs-20360102T000000Z.db", done.path.name]
    )
    assert back_up(registry, saved / "jobs.db", keep=1).path.exists()


def test_backups_in_one_second_have_names_of_their_own(
    saved: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "utc_timestamp", lambda: "20260619T093200Z")
    done = [back_up(registry, saved / "jobs.db", keep=3) for _ in range(4)]
    assert [backup.path.name for backup in done] == [
        "jobs-20260619T093200Z.db",
        "jobs-20260619T093200Z-2.db",
        "jobs-20260619T093200Z-3.db",
        "jobs-20260619T093200Z-4.db",
    ]
    assert [backup.removed for backup in done] == [(), (), (), (done[0].path,)]


@pytest.mark.parametrize("keep", [0, -1, True, 1.5])
def test_an_invalid_number_to_keep_creates_nothing(saved: Path, registry: Registry, keep: int) -> None:
    with pytest.raises(InvalidInput):
        back_up(registry, saved / "jobs.db", keep=keep)
    assert names(saved) == []


# -- names


def test_the_databases_own_files_are_refused_as_a_target(tmp_path: Path, saved: Path, registry: Registry) -> None:
    database = tmp_path / "db" / "jobs.db"
    (saved / "link.db").symlink_to(database)
    (saved / "dangling.db").symlink_to("nowhere")
    (saved / "-folder").mkdir()
    os.mkfifo(saved / "pipe")
    for target, error, words in (
        (database, InvalidInput, "itself"),
        (saved / "link.db", InvalidInput, "itself"),
        (saved, InvalidInput, "a folder"),
        (Path("/"), InvalidInput, "a folder"),
        (Path(""), InvalidInput, "a folder"),
        (Path(f"{database}-wal"), InvalidInput, "part of jobs.db"),
        (saved / "other-journal", InvalidInput, "part of other"),
        (saved / "other-gate", InvalidInput, "part of other"),
        (saved / "dangling.db", AlreadyExists, "exists already"),
        (saved / "pipe", AlreadyExists, "exists already"),
        (saved / "pipe" / "jobs.db", StorageFailed, "a file has that name"),
        (Path(os.fsdecode(os.fsencode(saved) + b"/\xff.db")), InvalidInput, "UTF-8"),
        (saved / ("x" * 250), StorageFailed, "too long"),
    ):
        with pytest.raises(error, match=words):
            back_up(registry, target)
    assert names(saved) == ["-folder", "dangling.db", "link.db", "pipe"]
    registry.close()
    os.link(database, saved / "second.db")
    (saved / "second.db").unlink()


@pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
def test_no_backup_is_written_beside_the_journals_of_another_file(saved: Path, registry: Registry, suffix: str) -> None:
    (saved / f"jobs.db{suffix}").write_bytes(b"of a file that was here")
    with pytest.raises(AlreadyExists, match="apply it to the backup"):
        back_up(registry, saved / "jobs.db")
    assert names(saved) == [f"jobs.db{suffix}"]


def test_a_file_or_link_that_was_planted_is_neither_followed_nor_replaced(saved: Path, registry: Registry) -> None:
    (saved / "precious").write_text("precious")
    (saved / "jobs.db.partial").symlink_to("precious")
    (saved / "other.db.partial").write_text("precious too")
    for name in ("jobs.db", "other.db"):
        back_up(registry, saved / name)
    assert (saved / "precious").read_text() == "precious" and (saved / "jobs.db.partial").is_symlink()
    assert (saved / "other.db.partial").read_text() == "precious too"


def test_leftovers_of_a_dead_backup_are_removed_and_those_of_a_running_one_kept(
    saved: Path, registry: Registry
) -> None:
    from jobdb.filesystem.scratch_file import ScratchFile

    (saved / "jobs.db.partial-01234567").write_bytes(b"left")
    (saved / "jobs.db.partial-01234567-journal").write_bytes(b"left")
    (saved / "jobs.db.partial-0123456z").write_bytes(b"another's")
    with ScratchFile(saved / "jobs.db", "partial") as living:
        back_up(registry, saved / "jobs.db")
        assert names(saved) == sorted(["jobs.db", "jobs.db.partial-0123456z", living.path.name])
    assert names(saved) == ["jobs.db", "jobs.db.partial-0123456z"]


@pytest.mark.parametrize("keep", [None, 9])
def test_concurrent_backups_to_one_target(tmp_path: Path, saved: Path, registry: Registry, keep: int | None) -> None:
    made: list[Backup] = []
    start = threading.Barrier(4)

    def run() -> None:
        with Registry.open(tmp_path / "db" / "jobs.db") as own:
            start.wait(30)
            made.append(back_up(own, saved / "jobs.db", keep=keep))

    errors = run_in_threads([run] * 4)
    assert [type(error) for error in errors] == ([AlreadyExists] * 3 if keep is None else [])
    assert len(made) == 4 - len(errors)
    assert names(saved) == sorted(backup.path.name for backup in made)
    assert {backup.jobs for backup in made} == {1}


def test_a_database_replaced_since_it_was_opened_is_not_backed_up(tmp_path: Path, saved: Path) -> None:
    database = tmp_path / "db" / "jobs.db"
    with Registry.open(tmp_path / "db" / "other.db", create=True) as other:
        other.register(agent="a", prompt="p", job_id="another")
    registry = Registry.open(database)
    try:
        database.rename(saved / "moved-away")
        shutil.copyfile(tmp_path / "db" / "other.db", database)
        with pytest.raises(Unusable, match="replaced"):
            back_up(registry, saved / "jobs.db")
        assert not (saved / "jobs.db").exists()
    finally:
        registry.close(checkpoint=False)


# -- disks


@pytest.fixture
def small_disk(small_disk: Path) -> Path:
    """A small disk with 60 KiB free."""
    (small_disk / "filler").write_bytes(b"x" * 460_000)
    return small_disk


def test_a_full_disk_is_reported_and_nothing_is_left_behind(small_disk: Path, saved: Path, registry: Registry) -> None:
    with pytest.raises(StorageFailed, match=f"disk that holds {small_disk}/.* is full"):
        back_up(registry, small_disk / "jobs.db")
    assert names(small_disk) == ["filler"]
    back_up(registry, saved / "jobs.db")
    with pytest.raises(StorageFailed, match="full"):
        restore_registry(saved / "jobs.db", parse_url(small_disk / "jobs.db"))
    assert names(small_disk) == ["filler"]


def test_a_target_folder_removed_during_the_backup(
    saved: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backup_module.verify

    def verify_and_lose(path: Path, *, named: Path | None = None) -> tuple[int, int]:
        found = whole(path, named=named)
        saved.rename(saved.with_name("elsewhere"))
        return found

    monkeypatch.setattr(backup_module, "verify", verify_and_lose)
    with pytest.raises(StorageFailed, match="removed or replaced"):
        back_up(registry, saved / "jobs.db")


def test_older_backups_that_cannot_be_removed_are_reported(saved: Path, registry: Registry) -> None:
    (saved / "jobs-20200101T000000Z.db").write_bytes(b"old")
    (saved / "jobs-20200101T000000Z.db-wal").mkdir()
    (saved / "jobs-20200101T000000Z.db-wal" / "file").touch()
    with pytest.raises(StorageFailed, match="was created and verified, but"):
        back_up(registry, saved / "jobs.db", keep=1)
    made = [path for path in saved.glob("jobs-*Z.db") if not path.name.startswith("jobs-2020")]
    assert len(made) == 1 and time.gmtime().tm_year > 2020
