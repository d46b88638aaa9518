"""Test the lossy file system through the kernel, with plain SQLite on it as a control that must lose or keep data."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.support.lossyfs.mount import LossyMount
from tests.support.plain_sqlite import create_plain, lost_rows, open_plain, write_rows
from tests.support.processes import WorkerPool
from tests.support.requirements import require_fuse
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _needs() -> None:
    require_fuse(root=True)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_synced_content_is_kept_and_unsynced_content_lost(tmp_path: Path) -> None:
    outcomes = set()
    for seed in range(6):
        with LossyMount(tmp_path / "mount", seed) as mount:
            file = os.open(mount.folder / "file", os.O_RDWR | os.O_CREAT)
            os.write(file, b"kept" * 2000)
            os.fdatasync(file)
            sync_folder(mount.folder)
            os.write(file, b"lost" * 2000)
            (mount.folder / "unsynced").write_bytes(b"x")
            lost = mount.cut()
            with pytest.raises(OSError):
                os.write(file, b"the host is dead")
            with suppress(OSError):
                os.close(file)
            mount.boot()
            assert lost["unsynced_files"] >= 1
            found = (mount.folder / "file").read_bytes()
            assert found.startswith(b"kept" * 2000)
            outcomes.add((len(found), (mount.folder / "unsynced").exists()))
        assert not os.path.ismount(mount.folder)
    assert len(outcomes) > 1


def test_an_armed_power_cut_replaces_the_request(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 1) as mount:
        mount.arm("write", "f*", 3)
        file = os.open(mount.folder / "file", os.O_RDWR | os.O_CREAT)
        with pytest.raises(OSError):
            for _ in range(10):
                os.write(file, b"x" * 10)
        with suppress(OSError):
            os.close(file)
        assert mount.wait_cut(10)["at"] == "write file"


def test_injected_errors_reach_the_caller(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 1, direct=True) as mount, open(mount.folder / "f", "w+b", 0) as file:
        for request, call in (
            ("write", lambda: file.write(b"x")),
            ("sync", lambda: os.fdatasync(file)),
            ("read", lambda: os.pread(file.fileno(), 1, 0)),
            ("open", lambda: os.close(os.open(mount.folder / "f", os.O_RDONLY))),
        ):
            file.write(b"good")
            mount.fail(request, "f", errno.EIO, count=1)
            with pytest.raises(OSError) as failure:
                call()
            assert failure.value.errno == errno.EIO
            call()
        assert mount.stats()["failed"] == 4


def test_each_open_handle_reports_a_failed_sync_once(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 1) as mount:
        path = mount.folder / "f"
        first, second = os.open(path, os.O_RDWR | os.O_CREAT), os.open(path, os.O_RDWR)
        os.write(first, b"x")
        mount.fail("sync", "f", errno.EIO, count=1)
        for handle in (first, second):
            with pytest.raises(OSError):
                os.fsync(handle)
        for handle in (first, second, os.open(path, os.O_RDWR)):
            os.fsync(handle)
            os.close(handle)


@pytest.mark.parametrize(
    ("journal", "synchronous", "loses"),
    [
        ("WAL", "OFF", True),
        ("WAL", "NORMAL", True),
        ("WAL", "FULL", False),
        ("DELETE", "FULL", True),
        ("DELETE", "EXTRA", False),
    ],
)
def test_plain_sqlite_loses_only_what_its_setting_allows(
    tmp_path: Path, journal: str, synchronous: str, loses: bool
) -> None:
    """DELETE with FULL loses: the journal's removal, which is the commit, is no longer synced (EXTRA syncs it)."""
    random = Random(f"{journal} {synchronous}")
    # A cut that may lose rows need not lose any: cut until one does.
    rounds, lost, promised = 40 if loses else 4, 0, 0
    for number in range(rounds):
        with LossyMount(tmp_path / "mount", random.randrange(1 << 30), unit=random.choice((512, 4096))) as mount:
            path, ack_log = mount.folder / "plain.db", tmp_path / f"acks{number}"
            create_plain(path, journal)
            with WorkerPool() as pool:
                for worker in range(3):
                    pool.start(write_rows, path, journal, synchronous, ack_log, worker)
                mount.arm("write", "plain.db*", random.randint(200, 900))
                mount.wait_cut(60)
                pool.kill()
                mount.boot()
            found = lost_rows(path, journal, ack_log)
            promised, lost = promised + found[0], lost + found[1]
            if lost and loses:
                break
    print(f"{journal} {synchronous}: {promised} rows acknowledged, {lost} lost")
    assert promised > 10
    assert (lost > 0) == loses


def test_several_processes_share_one_wal_on_the_lossy_mount(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 1) as mount, WorkerPool() as pool:
        path, ack_log = mount.folder / "plain.db", tmp_path / "acks"
        create_plain(path, "WAL")
        for worker in range(3):
            pool.start(write_rows, path, "WAL", "NORMAL", ack_log, worker)
        reader = open_plain(path, "WAL", "NORMAL")
        wait_until(lambda: reader.execute("SELECT count(DISTINCT worker) FROM rows WHERE number > 50").get == 3)
        reader.close()
        pool.kill()
        assert lost_rows(path, "WAL", ack_log)[1] == 0
        assert apsw.Connection(str(path)).pragma("journal_mode") == "wal"
