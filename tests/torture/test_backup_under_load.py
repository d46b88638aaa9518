"""Test fifty backups beside eight writers: each opens, is intact, and has all that was acknowledged before it began."""

from __future__ import annotations

import itertools
import multiprocessing
import stat
import time
from multiprocessing.synchronize import Event as Signal
from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.doctor import diagnose
from jobdb.engines.sql.statements import JOBS
from jobdb.operations.backup import back_up
from jobdb.operations.backup_file import verify
from jobdb.urls import parse_url
from tests.support.ack_log import AckLog, read_ack_log

WRITERS = 8
BACKUPS = 50


def write_until_stopped(path: str, log: str, stop: Signal, number: int) -> None:
    """Register, claim, publish and complete jobs; log each answer after the verb has returned."""
    ack_log = AckLog(Path(log))
    with Registry.open(path, busy_timeout_sec=60) as registry:
        for turn in itertools.count():
            job = registry.register(agent=f"agent-{number}", prompt=f"turn {turn} " * 20).job_id
            ack_log.write(job_id=job, seq=0)
            claim = registry.claim(job_id=job, worker=f"writer-{number}")
            assert claim is not None
            for _ in range(10):
                seq = registry.publish(job, "progress", detail="a step", attempt=claim.attempt).seq
                ack_log.write(job_id=job, seq=seq)
                time.sleep(0.001)
                if stop.is_set():
                    return
            seq = registry.complete(job, attempt=claim.attempt).seq
            ack_log.write(job_id=job, seq=seq)


def acknowledged(logs: list[Path]) -> dict[str, int]:
    """Return each job's highest acknowledged seq."""
    highest: dict[str, int] = {}
    for log in logs:
        for entry in read_ack_log(log):
            highest[entry["job_id"]] = max(highest.get(entry["job_id"], 0), entry["seq"])
    return highest


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "db"
    folder.mkdir(mode=0o700)
    return folder / "jobs.db"


def test_fifty_backups_beside_writers(database: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    logs = [tmp_path / f"writer-{number}.log" for number in range(WRITERS)]
    saved = tmp_path / "saved.db"
    taken = []
    with Registry.open(database, create=True, busy_timeout_sec=60) as registry:
        registry.register(agent="first", prompt="makes the key")
        writers = [
            context.Process(target=write_until_stopped, args=(str(database), str(log), stop, number))
            for number, log in enumerate(logs)
        ]
        for writer in writers:
            writer.start()
        try:
            deadline = time.monotonic() + 120
            while len([log for log in logs if log.exists()]) < WRITERS:
                assert time.monotonic() < deadline and all(writer.is_alive() for writer in writers)
                time.sleep(0.05)
            for turn in range(BACKUPS):
                before = acknowledged(logs)
                backup = back_up(registry, saved)
                assert all(writer.is_alive() for writer in writers), f"a writer died before backup {turn}"
                assert verify(saved) == (backup.jobs, backup.events)
                assert stat.S_IMODE(saved.stat().st_mode) == 0o600
                check(saved, before)
                taken.append((sum(before.values()), backup.events))
                saved.unlink()
        finally:
            stop.set()
            for writer in writers:
                writer.join(60)
                if writer.is_alive():
                    writer.kill()
        assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert taken[0][0] < taken[-1][0]  # the writers continued throughout
    assert diagnose(parse_url(database), full=True).ok
    print(f"{BACKUPS} backups beside {WRITERS} writers; the last one held {taken[-1][1]} events")


def check(saved: Path, before: dict[str, int]) -> None:
    """Assert that the copy is a working registry, a consistent snapshot, and has everything in ``before``."""
    with Registry.open(saved) as copy:
        found = {job.job_id: job for job in copy.all_jobs(page_size=500)}
        for job_id, seq in before.items():
            assert found[job_id].last_seq >= seq, job_id
        with copy.engine.store.read() as tx:
            counted = tx.all(JOBS.count_by_status)
        assert sum(count for _status, count in counted) == len(found)
        for job_id in list(before)[-5:]:
            seqs = [event.seq for event in copy.events(job_id)]
            assert seqs == list(range(1, found[job_id].last_seq + 1))
            assert copy.tokens.show(job_id)
    for suffix in ("-gate", "-wal", "-shm"):
        saved.with_name(saved.name + suffix).unlink(missing_ok=True)
