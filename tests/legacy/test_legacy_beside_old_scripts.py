"""Test old scripts that write during an import, and imports that are killed: nothing is partial, nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from jobdb.legacy import Outcome, import_registry
from jobdb.legacy.importing import readers
from tests.support.legacy_registry import read_records, registry_contents, snapshot

OLD_WRITER = """
# The old scripts' algorithm: one flock for every read-modify-write, temporary file, fsync, rename.
import fcntl, json, os, sys, time
folder, name, jobs, changes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def write(record):
    path = os.path.join(folder, record["job_id"] + ".json")
    beside = os.path.join(folder, "." + record["job_id"] + ".json.tmp")
    with open(beside, "w") as stream:
        json.dump(record, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(beside, path)

def locked(change):
    with open(os.path.join(folder, ".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        change()

def register(number):
    job_id = f"{name}-{number}"
    def change():
        write({"schema_version": 1, "job_id": job_id, "status": "pending", "created_at": "2026-06-19T09:30:00Z",
               "updated_at": "2026-06-19T09:30:00Z", "prompt": "0" * 50, "agent": name, "agent_session": None,
               "broker": {"host": "localhost", "port": 1883}, "topic_prefix": "t/" + job_id, "last_seq": 0})
    locked(change)

def advance(number, step):
    job_id = f"{name}-{number}"
    def change():
        path = os.path.join(folder, job_id + ".json")
        record = json.load(open(path))
        record["last_seq"] += 1
        record["prompt"] = str(record["last_seq"] % 10) * 50
        record["updated_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1800000000 + step))
        event = {"schema_version": 1, "seq": record["last_seq"], "job_id": job_id, "event": "progress",
                 "timestamp": record["updated_at"], "detail": record["prompt"], "data": {}}
        with open(os.path.join(folder, job_id + ".events.log"), "a") as log:
            log.write(json.dumps(event) + "\\n")
        write(record)
    locked(change)

for number in range(jobs):
    register(number)
print("registered", flush=True)
for step in range(changes):
    advance(step % jobs, step)
"""


def _import(source: str, database: str, begins: Any) -> None:
    with Registry.open(database) as registry:
        begins.set()
        import_registry(registry, source)


def test_old_writers_during_imports(tmp_path: Path, registry: Registry) -> None:
    jobs = tmp_path / "w" / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / ".lock").touch()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", OLD_WRITER, str(jobs), name, "6", "150"], stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    deadline = time.monotonic() + 120
    imports = 0
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "registered\n"
        while any(writer.poll() is None for writer in writers):
            assert time.monotonic() < deadline
            report = import_registry(registry, tmp_path / "w")
            assert report.ok, [row.as_dict() for row in report.rows()]
            assert report.counts[Outcome.SKIPPED] == 0
            imports += 1
            for job in registry.jobs():
                # Before or after a change, never between: every part of the record is of the same step.
                assert job.prompt == str(job.last_seq % 10) * 50
                events = registry.events(job.job_id)
                assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate(timeout=20)
    assert imports > 1
    import_registry(registry, tmp_path / "w")
    assert sum(job.last_seq for job in registry.jobs()) == 2 * 150
    records = read_records(tmp_path / "w")
    assert {job.job_id: job.last_seq for job in registry.jobs()} == {
        record["job_id"]: record["last_seq"] for record in records.values()
    }


def test_a_writer_that_creates_the_lock_during_the_import_stops_it(
    tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobdb import Busy

    jobs = make_legacy(tmp_path / "w")
    (jobs / ".lock").unlink()

    def appear(done: int, total: int) -> None:
        (jobs / ".lock").touch()

    with pytest.raises(Busy, match="began to use"):
        import_registry(registry, tmp_path / "w", progress=appear)
    assert registry.jobs() == []
    assert import_registry(registry, tmp_path / "w").counts[Outcome.IMPORTED] == 12


@pytest.mark.parametrize(("rounds", "processes"), [(40, 1), (10, 2)])
def test_a_killed_import_leaves_all_or_nothing(
    sample: Path,
    tmp_path: Path,
    open_database: Callable[..., Registry],
    monkeypatch: pytest.MonkeyPatch,
    rounds: int,
    processes: int,
) -> None:
    monkeypatch.setattr(readers, "MIN_RECORDS_FOR_PROCESS", 1 if processes == 2 else 10**9)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    source = snapshot(sample)
    with Registry.open(tmp_path / "whole.db", create=True) as whole:
        began = time.monotonic()
        import_registry(whole, sample)
        longest = time.monotonic() - began
        expected = registry_contents(whole)
    chance = random.Random(20260619)
    path = tmp_path / "killed" / "jobs.db"
    Registry.open(path, create=True).close()
    nothing = everything = 0
    context = multiprocessing.get_context("fork")
    for _ in range(rounds):
        begins = context.Event()
        process = context.Process(target=_import, args=(str(sample), str(path), begins))
        process.start()
        assert begins.wait(timeout=60)
        time.sleep(chance.random() * longest * 1.2)
        process.kill()
        process.join(timeout=30)
        with Registry.open(path) as registry:
            found = sum(registry.count_by_status().values())
            assert found in (0, 200)
            if found:
                everything += 1
                if everything <= 2:
                    assert registry_contents(registry) == expected
            else:
                nothing += 1
        if found:
            for suffix in ("", "-wal", "-shm", "-gate"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            Registry.open(path, create=True).close()
    assert snapshot(sample) == source
    assert nothing
    with Registry.open(path) as registry:
        assert import_registry(registry, sample).counts[Outcome.IMPORTED] == 200
        assert registry_contents(registry) == expected


def test_a_line_that_is_still_being_written_is_reported_as_cut_short(
    tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path]
) -> None:
    jobs = make_legacy(tmp_path / "w")
    log = sorted(jobs.glob("*.events.log"))[0]
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])
    before = os.stat(log).st_mtime_ns
    report = import_registry(registry, tmp_path / "w")
    named = {row.file: row.reason for row in report.rows(lambda outcome: outcome is Outcome.DAMAGED)}
    assert "cut short" in named[log.name]
    assert os.stat(log).st_mtime_ns == before
    log.write_bytes(whole)
    assert import_registry(registry, tmp_path / "w").counts[Outcome.UPDATED] == 1
    assert len(registry.events(log.name.partition(".")[0])) == len(
        json.loads(b"[" + b",".join(whole.splitlines()) + b"]")
    )
