"""persist-queue's SQLiteAckQueue: put, get, ack.

Called by harness.py. It is designed for the threads of one process: get() reads the next item and marks it in two
steps outside a transaction, so two processes can get the same item, and with auto_resume a process that opens the
queue takes back the items of others. So it is measured with one process only.
"""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from typing import Any, ClassVar

from persistqueue import SQLiteAckQueue
from persistqueue.exceptions import Empty

from .. import sample_data
from .base import AdapterInfo
from .queue import QueueAdapter


class PersistQueue(QueueAdapter[SQLiteAckQueue, int]):
    unsupported: ClassVar[dict[str, str]] = QueueAdapter.unsupported | {"list_page": "queue() reads all items; no page"}
    busy_errors = (sqlite3.OperationalError,)
    max_workers = 1

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        return AdapterInfo(
            label="persist-queue SQLiteAckQueue",
            durability=durability,
            as_shipped=True,
            settings="its defaults: journal_mode=WAL, SQLite's own synchronous=FULL, busy timeout 10 s",
            version=f"persist-queue {version('persist-queue')}, SQLite {sqlite3.sqlite_version}",
            notes={
                "claim": "get: reads and marks in two steps, right within one process only: measured with one",
                "life": "put, get, ack; no events",
            },
        )

    def _connect(self) -> SQLiteAckQueue:
        return SQLiteAckQueue(str(self.folder / "persist"), auto_resume=False)

    @staticmethod
    def _setting(queue: SQLiteAckQueue, pragma: str) -> Any:
        assert queue._putter is not None
        return queue._putter.execute(f"PRAGMA {pragma}").fetchone()

    def prepare(self, size: int) -> None:
        queue = self._connect()
        self._setting(queue, "synchronous = OFF")
        for record in sample_data.records(size):
            key = queue.put(record)
            if record["status"] == "running":
                queue._mark_ack_status(key, "2")
            elif record["status"] != "pending":
                queue.ack(id=key)
        queue.close()

    def open(self, worker: int, workers: int) -> None:
        super().open(worker, workers)
        assert self._setting(self._queue, "synchronous") == (2,)

    def register(self) -> int:
        self._queue.put(self._next_record())
        return 1

    def claim(self) -> int:
        try:
            item: dict[str, Any] = self._queue.get(block=False, raw=True)
        except Empty:
            return 0
        self._claimed.append(item["pqid"])
        return 1

    def complete(self) -> int:
        if not self._claimed:
            return 0
        self._queue.ack(id=self._claimed.popleft())
        return 1

    def prefill(self, operation: str, count: int) -> None:
        if operation == "complete":
            for number in range(count):
                self._claimed.append(self._queue.put(sample_data.record(self._source, number)) or 0)

    def reset_claims(self) -> None:
        for key in self._claimed:
            self._queue.nack(id=key)
        self._claimed.clear()
