"""A careful developer's own loop in threads on PostgreSQL: FOR UPDATE SKIP LOCKED, a transaction to claim, one to end.

The server flushes the commits of several connections at once, if they coincide. No leases, no events.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import ClassVar

import psycopg

from .base import Handle, Loop, PeerInfo, number_of, prompt

_PAUSE_SEC = 0.02
_SCHEMA = """
CREATE TABLE jobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, status TEXT NOT NULL, prompt TEXT NOT NULL,
    started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ
);
CREATE INDEX jobs_pending ON jobs (id) WHERE status = 'pending';
"""
_CLAIM = (
    "UPDATE jobs SET status = 'running', started_at = now() WHERE id = (SELECT id FROM jobs WHERE status = 'pending' "
    "ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, prompt"
)
_END = "UPDATE jobs SET status = 'completed', ended_at = now() WHERE id = %s AND status = 'running'"


class PostgresqlLoop(Loop):
    server: ClassVar[str] = "postgresql"

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="plain PostgreSQL loop, SKIP LOCKED",
            engine="PostgreSQL",
            slots="threads, a connection each",
            durability="full",
            syncs="one for the claim, one for the end; shared with those that coincide",
            ends_recorded=True,
            if_worker_dies="the job stays running: nothing takes it back",
            settings="fsync=on, synchronous_commit=on: PostgreSQL's own",
            version=f"psycopg {version('psycopg')}",
        )

    def prepare(self, jobs: int) -> None:
        with psycopg.connect(self.place.url) as db:
            db.execute(_SCHEMA)
            with db.cursor() as cursor:
                rows = (("pending", prompt(number)) for number in range(jobs))
                cursor.executemany("INSERT INTO jobs (status, prompt) VALUES (%s, %s)", rows)

    def work(self, handle: Handle, stopping: threading.Event) -> None:
        with psycopg.connect(self.place.url, autocommit=True) as db:
            while not stopping.is_set():
                found = db.execute(_CLAIM).fetchone()
                if found is None:
                    stopping.wait(_PAUSE_SEC)
                    continue
                handle(number_of(found[1]))
                if db.execute(_END, (found[0],)).rowcount != 1:
                    raise AssertionError(f"job {found[0]} was not running")

    def ended(self) -> int:
        with psycopg.connect(self.place.url) as db:
            found = db.execute("SELECT count(*) FROM jobs WHERE status = 'completed'").fetchone()
        assert found is not None
        return int(found[0])
