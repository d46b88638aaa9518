"""A careful developer's own loop in threads on sqlite3: WAL, synchronous FULL, one transaction to claim, one to end.

With joined=True, the end of a job and the claim of the next are one transaction: the least that a loop of single slots
can do. A lock of the process stands before the database's, whose waiting is by polling. No leases, no events.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .base import Handle, Loop, PeerInfo, Place, number_of, prompt

_PAUSE_SEC = 0.02
_SCHEMA = """
CREATE TABLE jobs (id INTEGER PRIMARY KEY, status TEXT NOT NULL, prompt TEXT NOT NULL, started_at TEXT, ended_at TEXT);
CREATE INDEX jobs_by_status ON jobs (status, id);
"""
_CLAIM = (
    "UPDATE jobs SET status = 'running', started_at = datetime('now') WHERE id = "
    "(SELECT id FROM jobs WHERE status = 'pending' ORDER BY id LIMIT 1) RETURNING id, prompt"
)
_END = "UPDATE jobs SET status = 'completed', ended_at = datetime('now') WHERE id = ? AND status = 'running'"

Claim = tuple[int, str]


class SqliteLoop(Loop):
    def __init__(self, place: Place, slots: int, *, joined: bool) -> None:
        super().__init__(place, slots)
        self._joined = joined
        self._lock = threading.Lock()

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="plain SQLite loop" + (", end and next claim in one transaction" if self._joined else ""),
            engine="SQLite",
            slots="threads, a connection each",
            durability="full",
            syncs="one for the end and the next claim" if self._joined else "one for the claim, one for the end",
            ends_recorded=True,
            if_worker_dies="the job stays running: nothing takes it back",
            settings="journal_mode=WAL, synchronous=FULL",
            version=f"sqlite3 of Python, SQLite {sqlite3.sqlite_version}",
        )

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.place.folder / "loop.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    def prepare(self, jobs: int) -> None:
        db = self._connect()
        db.executescript(_SCHEMA)
        db.execute("BEGIN IMMEDIATE")
        rows = (("pending", prompt(number)) for number in range(jobs))
        db.executemany("INSERT INTO jobs (status, prompt) VALUES (?, ?)", rows)
        db.execute("COMMIT")
        db.close()

    @contextmanager
    def _transaction(self, db: sqlite3.Connection) -> Iterator[None]:
        with self._lock:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _claim(self, db: sqlite3.Connection) -> Claim | None:
        with self._transaction(db):
            found: Claim | None = db.execute(_CLAIM).fetchone()
        return found

    def _end(self, db: sqlite3.Connection, job: int, *, and_claim: bool) -> Claim | None:
        found: Claim | None = None
        with self._transaction(db):
            if db.execute(_END, (job,)).rowcount != 1:
                raise AssertionError(f"job {job} was not running")
            if and_claim:
                found = db.execute(_CLAIM).fetchone()
        return found

    def work(self, handle: Handle, stopping: threading.Event) -> None:
        db = self._connect()
        claim: Claim | None = None
        while claim or not stopping.is_set():
            claim = claim or self._claim(db)
            if claim is None:
                stopping.wait(_PAUSE_SEC)
                continue
            job, text = claim
            handle(number_of(text))
            claim = self._end(db, job, and_claim=self._joined and not stopping.is_set())
        db.close()

    def ended(self) -> int:
        db = self._connect()
        found: int = db.execute("SELECT count(*) FROM jobs WHERE status = 'completed'").fetchone()[0]
        db.close()
        return found
