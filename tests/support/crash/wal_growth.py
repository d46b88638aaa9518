"""The WAL's length and the memory over many events, with a reader that stalls for a third of the run.

A stalled reader keeps SQLite from starting the WAL over, so it must grow; it is right when it is bounded without such a
reader, is reported with one, and starts over when the reader is gone. The events are published in batches of one job
each, so that a million take minutes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import apsw

from jobdb import NewEvent, Registry
from jobdb.doctor import diagnose
from jobdb.engines.sqlite.store import SqliteStore
from jobdb.model import EventKind
from jobdb.urls import parse_url
from tests.support.registries import open_registry

BATCH = 100
REPORTED_BYTES = 16 << 20
"""From this length on the doctor must report it."""


@dataclass
class LongRun:
    """Measurements in bytes, one for each third of the run."""

    events: int
    bound: int
    longest_wal: list[int]
    memory: list[int]
    reported: bool
    wal_restarted: bool

    @property
    def violations(self) -> list[str]:
        found = []
        if self.longest_wal[0] > self.bound:
            found.append(f"without a stalled reader the WAL grew to {self.longest_wal[0]} bytes")
        if self.longest_wal[1] <= self.longest_wal[0]:
            found.append("the stalled reader did not stall the WAL: the test shows nothing")
        if self.longest_wal[1] > REPORTED_BYTES and not self.reported:
            found.append(f"a WAL of {self.longest_wal[1]} bytes is not reported by the doctor")
        if self.longest_wal[2] > self.longest_wal[1] + self.bound:
            found.append("the WAL went on growing after the reader had gone")
        if not self.wal_restarted:
            found.append("the WAL did not start over after the reader had gone")
        if self.memory[2] > self.memory[0] + (24 << 20):
            found.append(f"memory grew from {self.memory[0]} to {self.memory[2]} bytes")
        return found

    def __str__(self) -> str:
        mebibytes = [f"{size / 2**20:.1f}" for size in (*self.longest_wal, *self.memory)]
        return (
            f"long run: {self.events} events; longest WAL before, during, after a stalled reader: "
            f"{', '.join(mebibytes[:3])} MiB (reported: {self.reported}); memory {', '.join(mebibytes[3:])} MiB"
        )


def run_long(folder: Path, events: int, *, checkpoint_pages: int = 1000) -> LongRun:
    """Publish ``events`` events, a third of them beside a stalled reader, and accept the last batch of each job.

    Checkpoints begin at ``checkpoint_pages`` and are forced at twice that; as much again is allowed for concurrent
    commits.
    """
    database = folder / "jobs.db"
    result = LongRun(events, checkpoint_pages * 4096 * 4, [], [], False, False)
    with open_registry(database, create=True, checkpoint_pages=checkpoint_pages) as registry:
        for third in range(3):
            reader = _stalled_reader(database) if third == 1 else None
            result.longest_wal.append(_publish_third(registry, database, events // 3 // BATCH))
            if reader is not None:
                report = diagnose(parse_url(str(database)))
                result.reported = any(found.check == "wal" and found.level != "ok" for found in report.findings)
                reader.close()
            result.memory.append(_resident_bytes())
        result.wal_restarted = _wal_restarts(registry, database) < checkpoint_pages
    return result


def _publish_third(registry: Registry, database: Path, batches: int) -> int:
    longest, job_id = 0, ""
    for number in range(batches):
        if number % 20 == 0:
            job_id = registry.register(agent="writer", prompt="a long day").job_id
        progress = NewEvent(job_id=job_id, event=EventKind.PROGRESS, detail="step", data={"number": number})
        published = registry.publish_many([progress] * BATCH)
        if number % 20 == 19:
            registry.accept_many([event.payload for event in published], subscriber="watcher")
        longest = max(longest, os.path.getsize(f"{database}-wal"))
    return longest


def _stalled_reader(database: Path) -> apsw.Connection:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM jobs").fetchone()
    return connection


def _wal_restarts(registry: Registry, database: Path) -> int:
    """Return the WAL's length in pages one commit after a whole checkpoint: a few, if the WAL started over."""
    store = registry.engine.store
    assert isinstance(store, SqliteStore)
    store.checkpoint()
    registry.register(agent="writer", prompt="the next day")
    connection = apsw.Connection(str(database))
    try:
        length, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    finally:
        connection.close()
    return length


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
