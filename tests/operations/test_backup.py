"""Test backups under load, which contain all that was acknowledged before they began, and restore."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from jobdb import AlreadyExists, Busy, NotAJobdbDatabase, Registry, StorageFailed, Unusable
from jobdb.operations.backup import back_up
from jobdb.operations.backup_file import verify
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url
from tests.support.database_holder import held_open


def publish_until_stopped(
    path: str, job_id: str, acknowledged: multiprocessing.Queue, stop: multiprocessing.Event
) -> None:  # type: ignore[valid-type]
    with Registry.open(path) as registry:
        while not stop.is_set():
            acknowledged.put(registry.publish(job_id, "progress").seq)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def test_each_backup_under_writers_holds_all_acknowledged_before_it(database: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    acknowledged, stop = context.Queue(), context.Event()
    with Registry.open(database, create=True) as registry:
        job = registry.register(agent="a", prompt="p")
        writers = [
            context.Process(target=publish_until_stopped, args=(str(database), job.job_id, acknowledged, stop))
            for _ in range(3)
        ]
        for writer in writers:
            writer.start()
        try:
            highest = 0
            for number in range(8):
                highest = max(highest, acknowledged.get(timeout=60))
                while not acknowledged.empty():
                    highest = max(highest, acknowledged.get(timeout=60))
                saved = back_up(registry, tmp_path / f"saved-{number}.db")
                assert saved.events >= highest > 0
                assert stat.S_IMODE(saved.path.stat().st_mode) == 0o600
        finally:
            stop.set()
            for writer in writers:
                while writer.is_alive():
                    while not acknowledged.empty():
                        acknowledged.get(timeout=5)
                    writer.join(0.05)
    assert not list(tmp_path.glob("*.partial"))
    with Registry.open(tmp_path / "saved-7.db") as copy:
        assert copy.get(job.job_id).last_seq >= highest
        assert copy.tokens.show(job.job_id)


def test_keep_removes_the_oldest_only(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Registry.open(database, create=True) as registry:
        for stamp in ("20260101T000000Z", "20260102T000000Z", "20260103T000000Z"):
            (tmp_path / f"nightly-{stamp}.db").write_bytes(b"older")
        (tmp_path / "nightly-notes.db").write_bytes(b"not one of them")
        saved = back_up(registry, tmp_path / "nightly.db", keep=2)
        assert [path.name for path in saved.removed] == ["nightly-20260101T000000Z.db", "nightly-20260102T000000Z.db"]
        assert saved.path.exists() and (tmp_path / "nightly-notes.db").exists()


def test_an_existing_file_is_not_overwritten(database: Path, tmp_path: Path) -> None:
    (tmp_path / "there.db").write_bytes(b"precious")
    with Registry.open(database, create=True) as registry, pytest.raises(AlreadyExists):
        back_up(registry, tmp_path / "there.db")
    assert (tmp_path / "there.db").read_bytes() == b"precious"


def test_restore_keeps_what_it_replaces(database: Path, tmp_path: Path) -> None:
    with Registry.open(database, create=True) as registry:
        early = registry.register(agent="a", prompt="early")
        back_up(registry, tmp_path / "saved.db")
        late = registry.register(agent="a", prompt="late")
        with pytest.raises(Unusable, match="open in this process"):
            restore_registry(tmp_path / "saved.db", parse_url(database))
    kept = restore_registry(tmp_path / "saved.db", parse_url(database)).kept
    assert kept is not None
    with Registry.open(database) as registry:
        assert [job.job_id for job in registry.jobs()] == [early.job_id]
    with Registry.open(kept) as registry:
        assert {job.job_id for job in registry.jobs()} == {early.job_id, late.job_id}


def test_restore_is_refused_while_a_process_has_the_database_open(database: Path, tmp_path: Path) -> None:
    with Registry.open(database, create=True) as registry:
        registry.register(agent="a", prompt="p")
        back_up(registry, tmp_path / "saved.db")
        registry.register(agent="a", prompt="q")
    with held_open(database), pytest.raises(Busy):
        restore_registry(tmp_path / "saved.db", parse_url(database), busy_sec=0.3)
    with Registry.open(database) as registry:
        assert len(registry.jobs()) == 2
    assert not list(tmp_path.glob("*.replaced-*"))


def test_a_damaged_or_foreign_file_is_refused_as_a_backup(database: Path, tmp_path: Path) -> None:
    with Registry.open(database, create=True) as registry:
        for number in range(200):
            registry.register(agent="a", prompt=f"prompt {number} " * 20)
        back_up(registry, tmp_path / "saved.db")
    damaged = bytearray((tmp_path / "saved.db").read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 8192] = b"\xff" * 8192
    (tmp_path / "damaged.db").write_bytes(damaged)
    (tmp_path / "garbage.db").write_bytes(b"no database at all" * 100)
    before = database.read_bytes()
    with pytest.raises(StorageFailed):
        restore_registry(tmp_path / "damaged.db", parse_url(database))
    with pytest.raises(NotAJobdbDatabase):
        restore_registry(tmp_path / "garbage.db", parse_url(database))
    assert database.read_bytes() == before
    assert verify(tmp_path / "saved.db") == (200, 0)
