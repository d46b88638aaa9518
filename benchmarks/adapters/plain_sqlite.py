"""A careful developer's own registry on sqlite3: WAL, immediate transactions, a busy timeout.

Called by harness.py. Three tables, one transaction per verb, unencrypted tokens, the same signing as jobdb, no fencing
by attempts, no records of refusals. The busy timeout is sqlite3's default of 5 seconds.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from .. import sample_data
from .base import LIFE_EVENTS, Adapter, AdapterInfo

_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, agent TEXT NOT NULL,
    worker TEXT, attempt INTEGER NOT NULL DEFAULT 0, last_seq INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL, auth_token TEXT NOT NULL, record TEXT NOT NULL
);
CREATE INDEX jobs_by_status ON jobs (status, id);
CREATE TABLE events (
    job INTEGER NOT NULL, seq INTEGER NOT NULL, payload TEXT NOT NULL, PRIMARY KEY (job, seq)
) WITHOUT ROWID;
CREATE TABLE subscriptions (
    subscriber TEXT NOT NULL, job INTEGER NOT NULL, last_seq INTEGER NOT NULL, PRIMARY KEY (subscriber, job)
) WITHOUT ROWID;
"""
_INSERT = (
    "INSERT INTO jobs (job_id, status, agent, last_seq, updated_at, auth_token, record) "
    "VALUES (:job_id, :status, :agent, :last_seq, :updated_at, :auth_token, :record)"
)
_CLAIM = (
    "UPDATE jobs SET status = 'running', worker = ?, attempt = attempt + 1, updated_at = ? WHERE id = "
    "(SELECT id FROM jobs WHERE status = 'pending' ORDER BY id LIMIT 1) RETURNING id, job_id"
)
_NEXT_SEQ = (
    "UPDATE jobs SET last_seq = last_seq + 1, updated_at = ? WHERE id = ? RETURNING job_id, last_seq, auth_token"
)
_SELECT_JOB = "SELECT id, auth_token FROM jobs WHERE job_id = ?"
_SELECT_LAST_SEQ = "SELECT last_seq FROM subscriptions WHERE subscriber = ? AND job = ?"
_UPSERT_LAST_SEQ = (
    "INSERT INTO subscriptions (subscriber, job, last_seq) VALUES (?, ?, ?) "
    "ON CONFLICT (subscriber, job) DO UPDATE SET last_seq = excluded.last_seq"
)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"record": json.dumps(record)}


class PlainSqlite(Adapter):
    unsupported: ClassVar[dict[str, str]] = {}
    busy_errors = (sqlite3.OperationalError,)

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._path = folder / "jobs.db"
        self._source = random.Random()
        self._number = 0
        self._running: list[int] = []
        self._claimed: deque[int] = deque()
        self._payloads: deque[str] = deque()
        self._connection: sqlite3.Connection | None = None

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        return AdapterInfo(
            label=f"plain SQLite, WAL, {durability.upper()}",
            durability=durability,
            as_shipped=durability == "full",
            settings=f"journal_mode=WAL, synchronous={durability.upper()}, busy timeout 5 s (as sqlite3 ships)",
            version=f"sqlite3 of Python, SQLite {sqlite3.sqlite_version}",
            notes={"life": f"register, claim, {LIFE_EVENTS} events, complete"},
        )

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def prepare(self, size: int) -> None:
        with sqlite3.connect(self._path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            db.executemany(_INSERT, (_row(record) for record in sample_data.records(size)))
        db.close()

    def open(self, worker: int, workers: int) -> None:
        self.worker, self.workers = worker, workers
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {self.durability.upper()}")
        running = [row[0] for row in self._db.execute("SELECT id FROM jobs WHERE status = 'running'")]
        self._running = running[worker::workers] or running

    def close(self) -> None:
        self._db.close()
        self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _register(self, count: int) -> int:
        rows = []
        for _ in range(count):
            self._number += 1
            rows.append(_row(sample_data.record(self._source, self._number)))
        with self._transaction() as db:
            db.executemany(_INSERT, rows)
        return count

    def register(self) -> int:
        return self._register(1)

    def register_100(self) -> int:
        return self._register(sample_data.BATCH)

    def claim(self) -> int:
        with self._transaction() as db:
            found = db.execute(_CLAIM, (f"worker{self.worker}", sample_data.now_text())).fetchone()
        if found is None:
            return 0
        self._claimed.append(found[0])
        return 1

    def _publish(self, jobs: list[int], kind: str = "progress", finish: bool = False) -> int:
        with self._transaction() as db:
            for job in jobs:
                job_id, seq, token = db.execute(_NEXT_SEQ, (sample_data.now_text(), job)).fetchone()
                line = sample_data.sign(sample_data.wire_event(job_id, seq, kind), token)
                db.execute("INSERT INTO events (job, seq, payload) VALUES (?, ?, ?)", (job, seq, line))
                if finish:
                    db.execute("UPDATE jobs SET status = 'completed' WHERE id = ?", (job,))
        return len(jobs)

    def publish(self) -> int:
        return self._publish([self._source.choice(self._running)])

    def publish_100(self) -> int:
        return self._publish([self._source.choice(self._running) for _ in range(sample_data.BATCH)])

    def _accept(self, count: int) -> int:
        lines = [self._payloads.popleft() for _ in range(min(count, len(self._payloads)))]
        if not lines:
            return 0
        with self._transaction() as db:
            for line in lines:
                named = json.loads(line)["job_id"]
                job, token = db.execute(_SELECT_JOB, (named,)).fetchone()
                event = sample_data.verify(line, token)
                assert event is not None
                seen = db.execute(_SELECT_LAST_SEQ, (sample_data.SUBSCRIBER, job)).fetchone()
                if seen is not None and event["seq"] <= seen[0]:
                    raise AssertionError("an event of this run was accepted before")
                seq = event["seq"]
                db.execute("INSERT INTO events (job, seq, payload) VALUES (?, ?, ?)", (job, seq, line))
                db.execute(
                    "UPDATE jobs SET last_seq = ?, updated_at = ? WHERE id = ?",
                    (seq, sample_data.now_text(), job),
                )
                db.execute(_UPSERT_LAST_SEQ, (sample_data.SUBSCRIBER, job, seq))
        return len(lines)

    def accept(self) -> int:
        return self._accept(1)

    def accept_100(self) -> int:
        return self._accept(sample_data.BATCH)

    def complete(self) -> int:
        return self._publish([self._claimed.popleft()], "completed", finish=True) if self._claimed else 0

    def list_page(self) -> int:
        rows = self._db.execute("SELECT record, status FROM jobs ORDER BY id DESC LIMIT ?", (sample_data.PAGE,))
        return int(bool([json.loads(row[0]) | {"status": row[1]} for row in rows]))

    def life(self) -> int:
        self.register()
        if not self.claim():
            return 0
        for _ in range(LIFE_EVENTS):
            self._publish([self._claimed[-1]])
        return self.complete()

    def prefill(self, operation: str, count: int) -> None:
        if operation in ("accept", "accept_100"):
            some = self._source.sample(self._running, min(len(self._running), 500))
            found = self._db.execute(
                f"SELECT job_id, last_seq, auth_token FROM jobs WHERE id IN ({','.join('?' * len(some))})",
                some,
            ).fetchall()
            for number in range(count):
                job_id, last_seq, token = found[number % len(found)]
                seq = last_seq + 1 + number // len(found)
                self._payloads.append(sample_data.sign(sample_data.wire_event(job_id, seq), token))
        elif operation == "complete":
            rows = [_row(sample_data.record(self._source, number, "running")) for number in range(count)]
            with self._transaction() as db:
                self._claimed.extend(db.execute(_INSERT, row).lastrowid or 0 for row in rows)

    def reset_claims(self) -> None:
        with self._transaction() as db:
            db.executemany("UPDATE jobs SET status = 'pending' WHERE id = ?", [(job,) for job in self._claimed])
        self._claimed.clear()
