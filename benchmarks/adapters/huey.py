"""huey's SqliteStorage, called directly: its fastest layer, without serializing tasks.

Called by harness.py. dequeue() deletes the task, so a claimed job is lost if its worker dies: there is no lease. The
outcome is recorded as huey's consumer does it: as a result in the key-value table.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from huey.storage import SqliteStorage  # type: ignore[import-untyped]

from .. import sample_data
from .base import NO_BATCH, Adapter, AdapterInfo

_NO_EVENTS = "has tasks and results, but no numbered events of a task"


class Huey(Adapter):
    unsupported: ClassVar[dict[str, str]] = {
        "publish": _NO_EVENTS,
        "accept": _NO_EVENTS,
        "register_100": NO_BATCH,
        "publish_100": _NO_EVENTS,
        "accept_100": _NO_EVENTS,
    }
    busy_errors = (sqlite3.OperationalError,)

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._storage: SqliteStorage | None = None
        self._source = random.Random()
        self._number = 0
        self._claimed: deque[bytes] = deque()

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        return AdapterInfo(
            label="huey SqliteStorage",
            durability=durability,
            as_shipped=True,
            settings="its defaults: journal_mode=WAL, synchronous=FULL (SQLite's own), busy timeout 5 s",
            version=f"huey {version('huey')}, SQLite {sqlite3.sqlite_version}",
            notes={
                "claim": "dequeue: the task is deleted, nothing takes it back if the worker dies",
                "complete": "put_data: records a result, as its consumer does",
                "life": "enqueue, dequeue, put_data; no events",
                "list_page": "enqueued_items(limit)",
            },
        )

    @property
    def _queue(self) -> SqliteStorage:
        assert self._storage is not None
        return self._storage

    def _connect(self) -> SqliteStorage:
        return SqliteStorage("jobs", filename=str(self.folder / "huey.db"))

    def prepare(self, size: int) -> None:
        storage = self._connect()
        storage.conn.execute("PRAGMA synchronous = OFF")
        for record in sample_data.records(size):
            if record["status"] == "pending":
                storage.enqueue(json.dumps(record).encode())
            elif record["status"] != "running":
                storage.put_data(record["job_id"], json.dumps(record).encode(), is_result=True)
        storage.close()

    def open(self, worker: int, workers: int) -> None:
        self._storage = self._connect()
        assert self._queue.conn.execute("PRAGMA synchronous").fetchone()[0] == 2

    def close(self) -> None:
        self._queue.close()
        self._claimed.clear()

    def register(self) -> int:
        self._number += 1
        self._queue.enqueue(json.dumps(sample_data.record(self._source, self._number)).encode())
        return 1

    def claim(self) -> int:
        data = self._queue.dequeue()
        if data is None:
            return 0
        self._claimed.append(data)
        return 1

    def complete(self) -> int:
        if not self._claimed:
            return 0
        record = json.loads(self._claimed.popleft())
        self._queue.put_data(record["job_id"], b'{"status": "completed"}', is_result=True)
        return 1

    def list_page(self) -> int:
        return int(bool([json.loads(item) for item in self._queue.enqueued_items(limit=sample_data.PAGE)]))

    def life(self) -> int:
        self.register()
        return self.claim() and self.complete()

    def prefill(self, operation: str, count: int) -> None:
        if operation == "complete":
            self._claimed.extend(
                json.dumps(sample_data.record(self._source, number)).encode() for number in range(count)
            )

    def reset_claims(self) -> None:
        while self._claimed:
            self._queue.enqueue(self._claimed[0])
            self._claimed.popleft()
