"""Loops in threads around queues in a SQLite file: litequeue, persist-queue and simplebroker, each at full durability.

They have no worker of their own; this is the loop of their documentation, in eight threads.
"""

from __future__ import annotations

import sqlite3
import threading
from importlib.metadata import version
from typing import Any

from .base import Handle, Loop, PeerInfo, number_of, prompt

_PAUSE_SEC = 0.02
_SYNCS = "one for the claim, one for the end"


class LitequeueLoop(Loop):
    """pop(), done(); a connection per thread, a lock in the process."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = threading.Lock()

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="litequeue in a loop",
            engine="SQLite",
            slots="threads, a connection each behind a lock",
            durability="full",
            syncs=_SYNCS,
            ends_recorded=True,
            if_worker_dies="the message stays locked until somebody calls retry",
            settings="journal_mode=WAL; synchronous=FULL and the lock set by us (it ships NORMAL)",
            version=f"litequeue {version('litequeue')}, SQLite {sqlite3.sqlite_version}",
        )

    def _connect(self) -> Any:
        from litequeue import LiteQueue  # type: ignore[import-untyped]

        with self._lock:
            queue = LiteQueue(self.place.folder / "litequeue.db")
            queue.conn.execute("PRAGMA synchronous = FULL")
        return queue

    def prepare(self, jobs: int) -> None:
        queue = self._connect()
        with queue.transaction():
            for number in range(jobs):
                queue.put(prompt(number))
        queue.close()

    def work(self, handle: Handle, stopping: threading.Event) -> None:
        queue = self._connect()
        while not stopping.is_set():
            with self._lock:
                message = queue.pop()
            if message is None:
                stopping.wait(_PAUSE_SEC)
                continue
            handle(number_of(message.data))
            with self._lock:
                queue.done(message.message_id)
        queue.close()

    def ended(self) -> int:
        queue = self._connect()
        return int(queue.conn.execute("SELECT count(*) FROM Queue WHERE status = 2").fetchone()[0])


class PersistQueueLoop(Loop):
    """get(), ack() on one SQLiteAckQueue that the threads share, as it is meant to be used."""

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="persist-queue SQLiteAckQueue in a loop",
            engine="SQLite",
            slots="threads, one queue",
            durability="full",
            syncs=_SYNCS,
            ends_recorded=True,
            if_worker_dies="the item is taken back when the queue is opened again; one process only",
            settings="its defaults with multithreading=True: journal_mode=WAL, SQLite's own synchronous=FULL",
            version=f"persist-queue {version('persist-queue')}, SQLite {sqlite3.sqlite_version}",
        )

    def _connect(self) -> Any:
        from persistqueue import SQLiteAckQueue

        return SQLiteAckQueue(str(self.place.folder / "persist"), multithreading=True)

    def prepare(self, jobs: int) -> None:
        queue = self._connect()
        queue._putter.execute("PRAGMA synchronous = OFF")
        for number in range(jobs):
            queue.put(prompt(number))
        queue.close()

    def start(self, handle: Handle) -> None:
        self._queue = self._connect()
        assert self._queue._putter.execute("PRAGMA synchronous").fetchone() == (2,)
        super().start(handle)

    def work(self, handle: Handle, stopping: threading.Event) -> None:
        from persistqueue.exceptions import Empty

        while not stopping.is_set():
            try:
                item = self._queue.get(block=False, raw=True)
            except Empty:
                stopping.wait(_PAUSE_SEC)
                continue
            handle(number_of(item["data"]))
            self._queue.ack(id=item["pqid"])

    def ended(self) -> int:
        return int(self._queue.acked_count())


class SimplebrokerLoop(Loop):
    """move_one() to a second queue, delete(): what its authors advise for work that must not be lost."""

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="simplebroker in a loop",
            engine="SQLite",
            slots="threads, a connection each",
            durability="full",
            syncs=_SYNCS,
            ends_recorded=True,
            if_worker_dies="the message stays in the second queue until somebody moves it back",
            settings="persistent=True, WAL, SYNC_MODE=FULL: its defaults",
            version=f"simplebroker {version('simplebroker')}",
        )

    def _connect(self, name: str) -> Any:
        from simplebroker import Queue

        return Queue(name, db_path=str(self.place.folder / "broker.db"), persistent=True)

    def prepare(self, jobs: int) -> None:
        queue = self._connect("pending")
        first = queue.generate_timestamp()
        queue.insert_messages([(prompt(number), first + number + 1) for number in range(jobs)])
        queue.close()

    def work(self, handle: Handle, stopping: threading.Event) -> None:
        pending, running = self._connect("pending"), self._connect("running")
        while not stopping.is_set():
            moved = pending.move_one("running", with_timestamps=True)
            if moved is None:
                stopping.wait(_PAUSE_SEC)
                continue
            handle(number_of(moved[0]))
            if not running.delete(message_id=moved[1]):
                raise AssertionError(f"message {moved[1]} was not there any more")
        pending.close()
        running.close()

    def ended(self) -> None:
        left = [*self._connect("pending").peek_many(1), *self._connect("running").peek_many(1)]
        if left:
            raise AssertionError("messages are still in the queues")
