"""persist-queue's SQLiteAckQueue: put, get, ack.

Called by harness.py. It is designed for the threads of one process: get() reads the next item and marks it in two
steps outside a transaction, so two processes can get the same item, and with auto_resume a process that opens the
queue takes back the items of others. So it is measured with one process only.
"""

from __future__ import annotations

import random
import sqlite3
from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from persistqueue import SQLiteAckQueue
from persistqueue.exceptions import Empty

from .. import sample_data
from .base import NO_BATCH, Adapter, AdapterInfo

_NO_EVENTS = "has items with a status, no events of an item"


class PersistQueue(Adapter):
    unsupported: ClassVar[dict[str, str]] = {
        "publish": _NO_EVENTS,
        "accept": _NO_EVENTS,
        "list_page": "queue() reads all items; no page",
        "register_100": NO_BATCH,
        "publish_100": _NO_EVENTS,
        "accept_100": _NO_EVENTS,
    }
    busy_errors = (sqlite3.OperationalError,)
    max_workers = 1

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._opened: SQLiteAckQueue | None = None
        self._source = random.Random()
        self._number = 0
        self._claimed: deque[int] = deque()

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

    @property
    def _queue(self) -> SQLiteAckQueue:
        assert self._opened is not None
        return self._opened

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
        self._opened = self._connect()
        assert self._setting(self._queue, "synchronous") == (2,)

    def close(self) -> None:
        self._queue.close()
        self._claimed.clear()

    def register(self) -> int:
        self._number += 1
        self._queue.put(sample_data.record(self._source, self._number))
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

    def life(self) -> int:
        self.register()
        return self.claim() and self.complete()

    def prefill(self, operation: str, count: int) -> None:
        if operation == "complete":
            for number in range(count):
                self._claimed.append(self._queue.put(sample_data.record(self._source, number)) or 0)

    def reset_claims(self) -> None:
        for key in self._claimed:
            self._queue.nack(id=key)
        self._claimed.clear()
