"""Test files that are created or replaced atomically: what a failure leaves behind."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from jobdb import StorageFailed
from jobdb.filesystem import ofd_locks, scratch_file
from jobdb.filesystem.atomic_files import write_file
from jobdb.filesystem.file_names import take_first_free
from jobdb.filesystem.scratch_file import ScratchFile
from tests.support.requirements import needs


def open_files() -> set[str]:
    return {os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)}


def test_an_unfinished_scratch_file_leaves_neither_file_nor_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(scratch_file, "copy_owner", fail)
    with pytest.raises(StorageFailed, match="Input/output error"):
        ScratchFile(tmp_path / "jobs.db", "partial")
    assert os.listdir(tmp_path) == []
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "note").write_text("old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "note", b"new")
    assert os.listdir(tmp_path) == ["note"] and (tmp_path / "note").read_text() == "old"


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "note").symlink_to("precious")
    write_file(tmp_path / "note", b"new")
    assert (tmp_path / "precious").read_text() == "precious" and (tmp_path / "note").read_text() == "new"
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600


def test_the_first_free_name_is_used(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert take_first_free((tmp_path / name for name in "abc"), os.mkdir) == tmp_path / "b"


@needs(ofd_locks.AVAILABLE, "only Linux has these locks")
def test_a_lock_on_an_open_file_survives_closing_another_descriptor(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ours, other = (os.open(tmp_path / "file", os.O_RDWR) for _ in range(2))
    try:
        ofd_locks.set_lock(ours, fcntl.F_WRLCK, 10, 1)
        os.close(os.open(tmp_path / "file", os.O_RDWR))
        with pytest.raises((BlockingIOError, PermissionError)):
            ofd_locks.set_lock(other, fcntl.F_RDLCK, 10, 1)
        ofd_locks.set_lock(other, fcntl.F_RDLCK, 11, 1)
    finally:
        os.close(ours)
        os.close(other)
