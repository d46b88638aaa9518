"""Test the legacy lock: acquired in turn, with a time limit, and never created for reading."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobdb.errors import Busy, Unusable
from jobdb.legacy.folder.lock import lock_holder, registry_lock

HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_by_other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.communicate(timeout=20)


def is_unlocked(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_the_lock_excludes_others_and_is_released(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with registry_lock(tmp_path, timeout_sec=5, create=False) as lock:
        assert lock.held
        assert not is_unlocked(tmp_path / ".lock")
        assert not lock.writer_appeared()
    assert is_unlocked(tmp_path / ".lock")


def test_a_timeout_names_the_holder(tmp_path: Path) -> None:
    with locked_by_other_process(tmp_path / ".lock") as process:
        with pytest.raises(Busy) as raised, registry_lock(tmp_path, timeout_sec=0.2, create=False):
            pass
        if sys.platform == "linux":
            assert f"(pid {process.pid})" in (lock_holder(tmp_path / ".lock") or "")
            assert f"(pid {process.pid})" in str(raised.value)
        assert raised.value.waited_sec == 0.2
    # The abandoned wait must not keep the lock when it acquires it.
    deadline = time.monotonic() + 20
    while not is_unlocked(tmp_path / ".lock"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_lock_is_acquired_when_the_holder_releases_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    timer = threading.Timer(0.1, os.close, (fd,))
    timer.start()
    with registry_lock(tmp_path, timeout_sec=20, create=False) as lock:
        assert lock.held
        assert not is_unlocked(path)
    timer.join()


def test_no_lock_file_is_created_for_reading(tmp_path: Path) -> None:
    with registry_lock(tmp_path, timeout_sec=1, create=False) as lock:
        assert not lock.held
        assert not lock.writer_appeared()
        (tmp_path / ".lock").touch()
        assert lock.writer_appeared()


def test_an_export_creates_a_private_lock_file(tmp_path: Path) -> None:
    with registry_lock(tmp_path, timeout_sec=1, create=True) as lock:
        assert lock.held
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_read_only_lock_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.touch(mode=0o400)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        with registry_lock(tmp_path, timeout_sec=1, create=False) as lock:
            assert lock.held
    finally:
        tmp_path.chmod(0o700)


def test_a_dangling_link_is_not_a_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Unusable, match="is dangling"), registry_lock(tmp_path, timeout_sec=1, create=False):
        pass


@pytest.mark.parametrize("create", [True, False])
def test_a_lock_that_is_not_a_file_of_its_own_is_refused_at_once(tmp_path: Path, create: bool) -> None:
    """A link would lock another file, a pipe would block, and neither excludes an old script."""
    path = tmp_path / ".lock"
    (tmp_path / "other").write_bytes(b"")
    for make in (
        lambda: path.symlink_to(tmp_path / "other"),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to("/dev/null"),
    ):
        make()
        with pytest.raises(Unusable, match="lock"), registry_lock(tmp_path, timeout_sec=1, create=create):
            pass
        path.rmdir() if path.is_dir() else path.unlink()
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o644


def test_a_lock_file_that_was_replaced_meanwhile_is_locked_again(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)

    def replace() -> None:
        path.unlink()
        path.touch()
        os.close(fd)

    timer = threading.Timer(0.1, replace)
    timer.start()
    with registry_lock(tmp_path, timeout_sec=20, create=False):
        timer.join()
        assert not is_unlocked(path)
