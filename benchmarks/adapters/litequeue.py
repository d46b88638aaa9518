"""litequeue: one table, pop() locks a message, done() ends it.

Called by harness.py. Its constructor sets synchronous=NORMAL; for the comparison at full durability the same
connection is set to FULL afterwards. Its busy timeout is sqlite3's default of 5 seconds.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from litequeue import LiteQueue  # type: ignore[import-untyped]

from .. import sample_data
from .base import NO_BATCH, Adapter, AdapterInfo

_NO_EVENTS = "has messages with a status, no events of a message"


class Litequeue(Adapter):
    unsupported: ClassVar[dict[str, str]] = {
        "publish": _NO_EVENTS,
        "accept": _NO_EVENTS,
        "list_page": "shows the next message, the locked and the failed ones; no page of all",
        "register_100": NO_BATCH,
        "publish_100": _NO_EVENTS,
        "accept_100": _NO_EVENTS,
    }
    busy_errors = (sqlite3.OperationalError,)

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._opened: LiteQueue | None = None
        self._source = random.Random()
        self._number = 0
        self._claimed: deque[str] = deque()

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

    @property
    def _queue(self) -> LiteQueue:
        assert self._opened is not None
        return self._opened

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
        self._opened = self._connect()
        if self.durability == "full":
            self._queue.conn.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        self._queue.close()
        self._claimed.clear()

    def register(self) -> int:
        self._number += 1
        self._queue.put(json.dumps(sample_data.record(self._source, self._number)))
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

    def life(self) -> int:
        self.register()
        return self.claim() and self.complete()

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
