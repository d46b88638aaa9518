"""Test disks that fail and fill up. The long versions are in tests/torture."""

import errno
import os
from pathlib import Path

import pytest

from jobdb import StorageFailed, SyncFailed
from jobdb.operations.backup import back_up
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url
from tests.support.crash.disk_errors import fail_at_points, fail_under_load, fill_disk
from tests.support.disks import small_disk
from tests.support.lossyfs.mount import LossyMount
from tests.support.registries import Journal, open_registry
from tests.support.requirements import require_fuse


@pytest.fixture(autouse=True)
def _needs() -> None:
    require_fuse(root=True)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_an_error_at_any_request_is_typed_and_loses_nothing(tmp_path: Path, journal: Journal) -> None:
    with LossyMount(tmp_path / "mount", 2, direct=True) as mount:
        report = fail_at_points(mount, tmp_path, 2, points=30, journal=journal)
        failed = mount.stats()["failed"]
    print(report)
    assert failed > 10
    assert not report.violations


def test_errors_under_load_lose_nothing(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 4, direct=True) as mount:
        report = fail_under_load(mount, tmp_path, 4, rounds=5)
        failed = mount.stats()["failed"]
    print(report)
    assert failed > 3
    assert not report.violations


def test_nothing_is_lost_on_full_disks_of_many_sizes(tmp_path: Path) -> None:
    report = fill_disk(tmp_path, 6, sizes=range(40, 640, 40))
    print(report)
    assert len(report.points_hit) == 2
    assert not report.violations


def test_a_restore_onto_a_full_disk_raises_and_changes_nothing(tmp_path: Path) -> None:
    with open_registry(tmp_path / "from" / "jobs.db", create=True) as registry:
        registry.register(agent="a", prompt="saved", job_id="saved")
        back_up(registry, tmp_path / "saved.db")
    pages = (tmp_path / "saved.db").stat().st_size // 4096
    reported = set()
    for room in (pages // 2, pages + 1, pages + 2, pages + 3, 3 * pages):
        disk = tmp_path / f"disk{room}"
        with small_disk(disk, 1 << 10):
            database = disk / "jobs.db"
            with open_registry(database, create=True) as registry:
                registry.register(agent="a", prompt="here", job_id="here")
            free = os.statvfs(disk).f_bfree
            (disk / "filler").write_bytes(bytes((free - room) * 4096))
            try:
                restore_registry(tmp_path / "saved.db", parse_url(database))
            except StorageFailed as error:
                reported.add("is full" in str(error))
                expected = "here"
            else:
                expected = "saved"
            (disk / "filler").unlink()
            with open_registry(database) as registry:
                assert [job.job_id for job in registry.jobs()] == [expected]
    assert reported == {True}


def test_a_failed_sync_is_not_reported_as_success(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 1) as mount:
        database = mount.folder / "here" / "jobs.db"
        with open_registry(database, create=True) as registry:
            registry.register(agent="a", prompt="before")
            mount.fail("sync", "*-wal", errno.EIO, count=1)
            with pytest.raises(SyncFailed):
                registry.register(agent="a", prompt="not confirmed")
            with pytest.raises(SyncFailed):
                registry.register(agent="a", prompt="the handle is not trusted again")
            assert mount.stats()["failed"] == 1


def test_answers_to_other_processes_after_a_failed_sync_survive_a_power_cut(tmp_path: Path) -> None:
    """The pages of the failed sync count as clean: unless they are written again, a gap precedes the later frames."""
    for seed in range(4):
        with LossyMount(tmp_path / "mount", seed) as mount:
            database = mount.folder / "here" / "jobs.db"
            bystander = open_registry(database, create=True, checkpoint_pages=1000)
            bystander.jobs()
            failing = open_registry(database, checkpoint_pages=1000)
            before = failing.register(agent="a", prompt="x" * 3000)
            mount.fail("sync", "*-wal", errno.EIO, count=1)
            with pytest.raises(SyncFailed):
                failing.register(agent="a", prompt="x" * 3000)
            failing.close()
            later = open_registry(database, checkpoint_pages=1000)
            acknowledged = later.register(agent="b", prompt="x" * 3000)
            mount.cut()
            for registry in (bystander, later):
                registry.close()
            mount.boot()
            with open_registry(database) as registry:
                assert registry.get(before.job_id).agent == "a"
                assert registry.get(acknowledged.job_id).agent == "b"


def test_a_failing_checkpoint_does_not_turn_a_commit_into_a_failure(tmp_path: Path) -> None:
    """The commit is in the WAL: if it were reported as failed, its caller would write it twice."""
    with LossyMount(tmp_path / "mount", 1) as mount:
        database = mount.folder / "here" / "jobs.db"
        with open_registry(database, create=True, checkpoint_pages=2) as registry:
            mount.fail("write", "jobs.db", errno.ENOSPC)
            jobs = [registry.register(agent="a", prompt="x" * 5000) for _ in range(10)]
            assert mount.stats()["failed"] > 0
            mount.clear()
            assert len(registry.jobs()) == len(jobs)


def test_a_failed_read_reports_the_disk_and_not_the_schema(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 1, direct=True) as mount:
        database = mount.folder / "here" / "jobs.db"
        with open_registry(database, create=True) as registry:
            for _ in range(50):
                registry.register(agent="a", prompt="x" * 20_000)
        with open_registry(database) as registry:
            mount.fail("read", "jobs.db*", errno.EIO)
            with pytest.raises(StorageFailed):
                registry.jobs()
            mount.clear()
            assert len(registry.jobs()) == 50
