"""Test the reader of the kernel's table of locks."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from jobdb.filesystem.kernel_locks import KernelLock, locks_on, process_name
from tests.support.requirements import on_linux


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


def table_for(path: Path, *lines: str) -> Path:
    """Write a table in which {here} is replaced by the file, {inode} by its inode and {other} by another inode."""
    found = path.stat()
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    names = {"here": f"{device}:{found.st_ino}", "other": f"{device}:{found.st_ino + 1}", "inode": found.st_ino}
    table = path.with_name("locks")
    table.write_text("".join(line.format(**names) + "\n" for line in lines))
    return table


def test_only_the_locks_on_the_file_are_listed(file: Path) -> None:
    table = table_for(
        file,
        "1: POSIX  ADVISORY  WRITE 4711 {here} 120 127",
        "1: -> POSIX  ADVISORY  WRITE 4712 {here} 120 127",
        "2: FLOCK  ADVISORY  WRITE 0 {here} 0 EOF",
        "3: OFDLCK ADVISORY  READ -1 {here} 128 128",
        "4: POSIX  ADVISORY  READ 4711 {other} 0 EOF",
        "5: LEASE  ACTIVE    READ 4711 {here}",
        "6: POSIX  ADVISORY  READ 4711 ff:ff:{inode} 0 EOF",
        "",
    )
    assert locks_on(file, table=table) == [
        KernelLock("POSIX", True, 4711, 120),
        KernelLock("FLOCK", True, 0, 0),
        KernelLock("OFDLCK", False, -1, 128),
    ]


def test_unreadable_lock_tables_yield_no_locks(file: Path) -> None:
    assert locks_on(file, table=file.with_name("none")) == []
    assert locks_on(file.with_name("none")) == []


@on_linux("has this table")
def test_a_lock_of_this_process_is_found_with_its_holder(file: Path) -> None:
    with file.open("r+b") as opened:
        assert locks_on(file) == []
        fcntl.flock(opened, fcntl.LOCK_SH)
        [lock] = locks_on(file)
    assert (lock.kind, lock.exclusive, lock.pid) == ("FLOCK", False, os.getpid())
    assert lock.holder == f"{process_name(os.getpid())} (pid {os.getpid()})"
