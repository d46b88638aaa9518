"""huey's SqliteStorage, called directly: its fastest layer, without serializing tasks.

Called by harness.py. dequeue() deletes the task, so a claimed job is lost if its worker dies: there is no lease. The
outcome is recorded as huey's consumer does it: as a result in the key-value table.
"""

from __future__ import annotations

import json
import sqlite3
from importlib.metadata import version

from huey.storage import SqliteStorage  # type: ignore[import-untyped]

from .. import sample_data
from .base import AdapterInfo
from .queue import QueueAdapter


class Huey(QueueAdapter[SqliteStorage, bytes]):
    busy_errors = (sqlite3.OperationalError,)

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
        super().open(worker, workers)
        assert self._queue.conn.execute("PRAGMA synchronous").fetchone()[0] == 2

    def register(self) -> int:
        self._queue.enqueue(json.dumps(self._next_record()).encode())
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

    def prefill(self, operation: str, count: int) -> None:
        if operation == "complete":
            self._claimed.extend(
                json.dumps(sample_data.record(self._source, number)).encode() for number in range(count)
            )

    def reset_claims(self) -> None:
        while self._claimed:
            self._queue.enqueue(self._claimed[0])
            self._claimed.popleft()
