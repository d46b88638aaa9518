"""A worker whose database cannot be used for a while, or any more: no outcome is lost, and nothing runs on."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from jobdb import JobStatus, Registry
from jobdb.errors import DatabaseReplaced, JobdbError
from jobdb.work import Work
from jobdb.work.transitions import Ended, Lost, Started, Trouble
from tests.support.disks import resize_disk, small_disk
from tests.support.waiting import TIMEOUT_SEC, wait_until
from tests.support.workers import BackgroundWorker


def register(registry: Registry, job_id: str) -> None:
    registry.register(agent="codex", prompt="sort", job_id=job_id)


def test_a_locked_database_delays_an_outcome(database: Path) -> None:
    with Registry.open(database, busy_timeout_sec=0.05) as registry, Registry.open(database) as other:
        register(registry, "job")
        go_on = threading.Event()
        worker = BackgroundWorker(registry, lambda work: go_on.wait(TIMEOUT_SEC), until_empty=True)
        worker.wait_for(Started)
        with other.store.write():
            go_on.set()
            worker.wait_for(Trouble, 3)
            assert worker.of(Ended) == []
        assert worker.join().completed == 1
        assert registry.get("job").status is JobStatus.COMPLETED


def test_a_full_disk_delays_an_outcome(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1024) as folder, Registry.open(folder / "jobs.db", create=True) as registry:
        register(registry, "job")

        def handler(work: Work) -> str:
            filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
            with suppress(OSError):
                while True:
                    os.write(filler, b"\0" * 4096)
            os.close(filler)
            return "x" * 60_000

        worker = BackgroundWorker(registry, handler, until_empty=True)
        worker.wait_for(Trouble, 3)
        resize_disk(folder, "16m")
        assert worker.join().completed == 1
        assert registry.get("job").status is JobStatus.COMPLETED


def test_a_replaced_database_ends_the_worker_after_what_it_runs(database: Path) -> None:
    with Registry.open(database) as registry:
        register(registry, "job")
        told = threading.Event()

        def handler(work: Work) -> None:
            work.wait(TIMEOUT_SEC)
            told.set()

        worker = BackgroundWorker(registry, handler, lease_sec=1)
        worker.wait_for(Started)
        os.rename(database, database.with_name("moved.db"))
        wait_until(lambda: worker.error)
        assert isinstance(worker.error, DatabaseReplaced | JobdbError) and told.is_set()
        assert [each.job_id for each in worker.of(Lost)] == ["job"]
        with pytest.raises(JobdbError):
            registry.get("job")
