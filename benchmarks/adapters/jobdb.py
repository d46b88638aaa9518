"""jobdb itself, through its public library, on SQLite.

Called by harness.py; postgresql.py and raw_apsw.py build on it. The jobs have no broker, so that publishing puts
nothing into the outbox, which the other implementations do not have. Tokens are encrypted, events signed and verified
as always.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import apsw

from jobdb import Arrival, Busy, EventKind, NewEvent, NewJob, Registry, Vault, Verdict, __version__
from jobdb.crypto.master_key import create_key_file

from .. import sample_data
from .base import LIFE_EVENTS, Adapter, AdapterInfo

_CHUNK = 5000
_MOST_RUNNING = 10_000
SET_STATUSES_SQL = """
UPDATE jobs SET status = 'completed', finished_ms = updated_ms, terminal_seq = last_seq WHERE (id - 1) % 20 < 12;
UPDATE jobs SET status = 'error', finished_ms = updated_ms, terminal_seq = last_seq WHERE (id - 1) % 20 = 12;
UPDATE jobs SET status = 'cancelled', finished_ms = updated_ms, terminal_seq = last_seq WHERE (id - 1) % 20 = 13;
UPDATE jobs SET status = 'running', attempt = 1, worker = 'before', started_ms = updated_ms
 WHERE (id - 1) % 20 IN (14, 15);
"""


def benchmark_vault(folder: Path) -> Vault:
    """Return a vault with a key of its own in the folder; the user's key is not touched."""
    path = folder / "master.key"
    if not path.exists():
        create_key_file(path)
    return Vault.open(create=False, env={"JOBDB_KEY_FILE": str(path)})


def new_job(record: dict[str, Any]) -> NewJob:
    """Return the job of a synthetic record."""
    return NewJob(
        job_id=record["job_id"],
        agent=record["agent"],
        agent_session=record["agent_session"],
        prompt=record["prompt"],
        topic_prefix=record["topic_prefix"],
        expected_artifacts=record["expected_artifacts"],
        auth_token=record["auth_token"],
    )


class Jobdb(Adapter):
    unsupported: ClassVar[dict[str, str]] = {}
    busy_errors = (Busy,)

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._source = random.Random()
        self._number = 0
        self._running: list[str] = []
        self._claimed: deque[tuple[str, int]] = deque()
        self._payloads: deque[str] = deque()
        self._opened: Registry | None = None

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        return AdapterInfo(
            label=f"jobdb, {durability}",
            durability=durability,
            as_shipped=durability == "full",
            settings=f"durability={durability!r}, all else as shipped",
            version=f"jobdb {__version__}, apsw {apsw.apsw_version()}, SQLite {apsw.sqlite_lib_version()}",
            notes={"life": f"register, claim, {LIFE_EVENTS} events, complete"},
        )

    def _url(self) -> str:
        return f"sqlite:///{self.folder / 'jobs.db'}"

    def _connect(self, durability: str, create: bool = False) -> Registry:
        key = benchmark_vault(self.folder)
        return Registry.open(self._url(), create=create, durability=durability, vault=key)

    @property
    def _registry(self) -> Registry:
        assert self._opened is not None
        return self._opened

    def prepare(self, size: int) -> None:
        running = []
        with self._connect("normal", create=True) as registry:
            chunk = []
            for record in sample_data.records(size):
                chunk.append(new_job(record))
                if record["status"] == "running":
                    running.append(record["job_id"])
                if len(chunk) == _CHUNK:
                    registry.register_many(chunk)
                    chunk.clear()
            registry.register_many(chunk)
        step = max(1, len(running) // _MOST_RUNNING)
        (self.folder / "running.json").write_text(json.dumps(running[::step]), "utf-8")
        self._set_statuses()

    def _set_statuses(self) -> None:
        """Set the statuses directly: otherwise each past job would take a claim, a completion and a sync."""
        database = sqlite3.connect(self.folder / "jobs.db")
        with database:
            database.executescript(SET_STATUSES_SQL)
        database.close()

    def open(self, worker: int, workers: int) -> None:
        self.worker, self.workers = worker, workers
        running = json.loads((self.folder / "running.json").read_text("utf-8"))
        self._running = running[worker::workers] or running
        self._opened = self._connect(self.durability)

    def close(self) -> None:
        self._registry.close()
        self._opened = None

    def _new_jobs(self, count: int) -> list[NewJob]:
        first = self._number + 1
        self._number += count
        return [new_job(sample_data.record(self._source, number)) for number in range(first, first + count)]

    def _register(self, count: int) -> int:
        return len(self._registry.register_many(self._new_jobs(count)))

    def register(self) -> int:
        return self._register(1)

    def register_100(self) -> int:
        return self._register(sample_data.BATCH)

    def claim(self) -> int:
        claim = self._registry.claim(worker=f"worker{self.worker}")
        if claim is None:
            return 0
        self._claimed.append((claim.job_id, claim.attempt))
        return 1

    def publish(self) -> int:
        self._registry.publish(
            self._source.choice(self._running), "progress", detail="step 3 of 10", data={"pct": 30}, attempt=1
        )
        return 1

    def publish_100(self) -> int:
        events = [
            NewEvent(
                job_id=self._source.choice(self._running),
                event=EventKind.PROGRESS,
                detail="step 3 of 10",
                data={"pct": 30},
                attempt=1,
            )
            for _ in range(sample_data.BATCH)
        ]
        return len(self._registry.publish_many(events))

    def _accept(self, count: int) -> int:
        batch = [Arrival(self._payloads.popleft()) for _ in range(min(count, len(self._payloads)))]
        if not batch:
            return 0
        answers = self._registry.accept_many(batch, subscriber=sample_data.SUBSCRIBER, start="now")
        for answer in answers:
            if answer.verdict is not Verdict.ACCEPTED:
                raise AssertionError(f"an event of this run was answered with {answer.verdict}: {answer.reason}")
        return len(answers)

    def accept(self) -> int:
        return self._accept(1)

    def accept_100(self) -> int:
        return self._accept(sample_data.BATCH)

    def complete(self) -> int:
        if not self._claimed:
            return 0
        job_id, attempt = self._claimed.popleft()
        self._registry.complete(job_id, attempt=attempt)
        return 1

    def list_page(self) -> int:
        return int(bool(self._registry.jobs(limit=sample_data.PAGE)))

    def life(self) -> int:
        self.register()
        if not self.claim():
            return 0
        job_id, attempt = self._claimed[-1]
        for _ in range(LIFE_EVENTS):
            self._registry.publish(job_id, "progress", detail="step", data={"pct": 30}, attempt=attempt)
        return self.complete()

    def prefill(self, operation: str, count: int) -> None:
        if operation in ("accept", "accept_100"):
            some = [
                (self._registry.get(job_id), self._registry.tokens.current(job_id))
                for job_id in self._source.sample(self._running, min(len(self._running), 500))
            ]
            for number in range(count):
                job, (kid, token) = some[number % len(some)]
                seq = job.last_seq + 1 + number // len(some)
                event = sample_data.wire_event(job.job_id, seq, attempt=job.attempt, hmac_kid=kid)
                self._payloads.append(sample_data.sign(event, token))
        elif operation == "complete":
            for job in self._registry.register_many(self._new_jobs(count)):
                claim = self._registry.claim(worker=f"worker{self.worker}", job_id=job.job_id)
                assert claim is not None
                self._claimed.append((claim.job_id, claim.attempt))

    def reset_claims(self) -> None:
        while self._claimed:
            job_id, attempt = self._claimed[0]
            self._registry.release(job_id, attempt=attempt)
            self._claimed.popleft()
