"""The watch of a WAL: it tells of writes, forgets what came before, and refuses what it cannot watch."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobdb.engines.sqlite.wal_watch import WalWatch
from tests.support.requirements import on_linux

pytestmark = on_linux("has inotify")


def test_a_write_ends_the_wait(tmp_path: Path) -> None:
    wal = tmp_path / "jobs.db-wal"
    wal.write_bytes(b"header")
    watch = WalWatch(wal)
    assert not watch.wait(0)
    wal.write_bytes(b"another")
    assert watch.wait(5)


def test_a_forgotten_write_ends_no_wait(tmp_path: Path) -> None:
    wal = tmp_path / "jobs.db-wal"
    wal.touch()
    watch = WalWatch(wal)
    wal.write_bytes(b"frame")
    watch.forget()
    assert not watch.wait(0)


def test_a_missing_file_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file|inotify_add_watch"):
        WalWatch(tmp_path / "jobs.db-wal")
