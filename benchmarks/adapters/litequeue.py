"""litequeue: one table, pop() locks a message, done() ends it.

Called by harness.py. Its constructor sets synchronous=NORMAL; for the comparison at full durability the same
connection is set to FULL afterwards. Its busy timeout is sqlite3's default of 5 seconds.
"""

from __future__ import annotations

import json
import sqlite3
from importlib.metadata import version
from typing import ClassVar

from litequeue import LiteQueue  # type: ignore[import-untyped]

from .. import sample_data
from .base import AdapterInfo
from .queue import QueueAdapter


class Litequeue(QueueAdapter[LiteQueue, str]):
    unsupported: ClassVar[dict[str, str]] = QueueAdapter.unsupported | {
        "list_page": "shows the next message, the locked and the failed ones; no page of all"
    }
    busy_errors = (sqlite3.OperationalError,)

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        shipped = durability == "normal"
        return AdapterInfo(
            label=f"litequeue, {durability.upper()}",
            durability=durability,
            as_shipped=shipped,
            settings="journal_mode=WAL, busy timeout 5 s, "
            + ("synchronous=NORMAL: its own settings" if shipped else "synchronous=FULL set by us (it ships NORMAL)"),
            version=f"litequeue {version('litequeue')}, SQLite {sqlite3.sqlite_version}",
            notes={"claim": "pop: no lease, no attempt number", "life": "put, pop, done; no events"},
        )

    def _connect(self) -> LiteQueue:
        return LiteQueue(self.folder / "litequeue.db")

    def prepare(self, size: int) -> None:
        queue = self._connect()
        with queue.transaction():
            for record in sample_data.records(size):
                message = queue.put(json.dumps(record))
                if record["status"] == "running":
                    queue.conn.execute(
                        "UPDATE [Queue] SET status = 1, lock_time = in_time WHERE message_id = ?",
                        (message.message_id,),
                    )
                elif record["status"] != "pending":
                    queue.done(message.message_id)
        queue.close()

    def open(self, worker: int, workers: int) -> None:
        super().open(worker, workers)
        if self.durability == "full":
            self._queue.conn.execute("PRAGMA synchronous = FULL")

    def register(self) -> int:
        self._queue.put(json.dumps(self._next_record()))
        return 1

    def claim(self) -> int:
        message = self._queue.pop()
        if message is None:
            return 0
        self._claimed.append(message.message_id)
        return 1

    def complete(self) -> int:
        if not self._claimed:
            return 0
        self._queue.done(self._claimed.popleft())
        return 1

    def prefill(self, operation: str, count: int) -> None:
        if operation == "complete":
            with self._queue.transaction(mode="IMMEDIATE"):
                for number in range(count):
                    message = self._queue.put(json.dumps(sample_data.record(self._source, number)))
                    self._claimed.append(message.message_id)

    def reset_claims(self) -> None:
        with self._queue.transaction(mode="IMMEDIATE"):
            for message_id in self._claimed:
                self._queue.retry(message_id)
        self._claimed.clear()
