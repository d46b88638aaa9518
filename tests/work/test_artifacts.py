"""Test the check of expected files: only files inside the folder count, and what is examined cannot be exchanged."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

import jobdb.work.artifacts as module
from jobdb.errors import InvalidInput
from jobdb.work.artifacts import examine_artifacts, missing_artifacts
from tests.support.requirements import on_linux


def test_artifacts_count_only_inside_the_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "work", tmp_path / "work-2"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "there").touch()
    (folder / "here").touch()
    (folder / "sub" / "deep").touch()
    os.symlink(outside, folder / "link")
    os.symlink("/etc/passwd", folder / "passwd")
    os.symlink("nowhere", folder / "dangling")
    os.symlink("loop", folder / "loop")
    os.symlink("sub/deep", folder / "inside")
    expected = ("here", "sub/deep", "sub/", "inside", "./here", "sub//deep")
    assert missing_artifacts(str(folder), expected) == []
    wrong = ("link/there", "passwd", "dangling", "loop", "../work-2/there", "/etc/passwd", "", "a\0b", "here/", "no")
    assert [path for path, _ in missing_artifacts(str(folder), wrong)] == list(wrong)
    os.symlink(folder, tmp_path / "alias")
    assert missing_artifacts(str(tmp_path / "alias"), expected) == []
    assert set(examine_artifacts(str(folder), expected).found) == set(expected)
    assert [path for path, _ in examine_artifacts(str(folder), wrong).missing] == list(wrong)
    with pytest.raises(InvalidInput, match="is not a folder"):
        missing_artifacts(str(folder / "here"), expected)


def test_digests_and_sizes(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "empty").touch()
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "a").write_bytes(b"12345")
    (tmp_path / "tree" / "below" / "b").write_bytes(b"123")
    os.symlink("../large", tmp_path / "tree" / "link")
    os.symlink("..", tmp_path / "tree" / "below" / "loop")
    os.mkfifo(tmp_path / "tree" / "pipe")
    found = examine_artifacts(str(tmp_path), ["large", "empty", "tree/", "large"])
    assert found.missing == []
    assert found.found == {
        "large": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": 3_000_000},
        "empty": {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0},
        "tree/": {"files": 2, "bytes": 8},
    }


def test_the_work_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "b").write_bytes(b"1234")
    (tmp_path / "c").write_bytes(b"1")
    found = examine_artifacts(str(tmp_path), ["a", "b", "c"], digest_bytes=5).found
    assert [found[name]["sha256"] is None for name in "abc"] == [False, True, False]
    assert [found[name]["bytes"] for name in "abc"] == [4, 4, 1]
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    (counted,) = examine_artifacts(str(tmp_path), ["./"]).found.values()
    assert counted["files"] == 2 and counted["more"] is True


def test_a_deep_folder_is_counted(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    try:
        assert examine_artifacts(str(tmp_path), ["d/"]).found == {"d/": {"files": 0, "bytes": 0}}
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # too deep for pytest's own removal


def test_a_file_that_cannot_be_read_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1234")

    def refuse(fd: int, size: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("jobdb.work.artifacts.os.read", refuse)
    assert examine_artifacts(str(tmp_path), ["a"]).found == {"a": {"sha256": None, "bytes": 4}}


@on_linux("has /proc")
def test_a_name_that_is_exchanged_meanwhile_never_gives_the_digest_of_a_file_outside(tmp_path: Path) -> None:
    """One thread exchanges the file, and the folder above it, for links that lead out, as fast as it can."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "sub", outside):
        folder.mkdir(parents=True)
    (outside / "file").write_bytes(b"secret")
    (root / "sub" / "file").write_bytes(b"inside")
    os.symlink(outside, root / "lure")
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for one, other in (("sub", "kept"), ("lure", "sub"), ("sub", "lure"), ("kept", "sub")):
                os.rename(root / one, root / other)

    thread = threading.Thread(target=exchange)
    thread.start()
    digests = set()
    try:
        for _ in range(2000):
            found = examine_artifacts(str(root), ["sub/file"]).found
            digests |= {facts["sha256"] for facts in found.values()}
    finally:
        stop.set()
        thread.join()
    assert digests <= {hashlib.sha256(b"inside").hexdigest()}


@pytest.mark.parametrize("has_o_path", [True, False])
def test_pipes_and_devices_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_o_path: bool) -> None:
    if not has_o_path:
        monkeypatch.setattr(module, "_O_PATH", 0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    found = examine_artifacts(str(tmp_path), ["pipe", "file", "folder/", "file/", "none"])
    assert set(found.found) == {"file", "folder/"}
    assert [path for path, _ in found.missing] == ["pipe", "file/", "none"]
    with pytest.raises(OSError, match="No such device or address"):  # nobody has it open for reading
        os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)
