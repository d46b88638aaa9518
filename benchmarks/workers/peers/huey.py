"""huey's consumer with eight threads on its SqliteStorage.

Claiming deletes the task, so a worker's death loses it. With results=True the handler returns a value, which the
consumer stores: without one it records no end of a job at all.
"""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from typing import Any

from huey import SqliteHuey  # type: ignore[import-untyped]
from huey.consumer import Consumer  # type: ignore[import-untyped]

from .base import Handle, PeerInfo, Place, WorkerPeer, ignore, prompt


class HueyConsumer(WorkerPeer):
    def __init__(self, place: Place, slots: int, *, results: bool) -> None:
        super().__init__(place, slots)
        self._results = results
        self._huey: Any = None
        self._task: Any = None
        self._consumer: Any = None

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="huey consumer" + (", results stored" if self._results else ", no results"),
            engine="SQLite",
            slots="threads, one connection behind a lock",
            durability="full",
            syncs="one when the task is taken" + (", one when its result is stored" if self._results else ""),
            ends_recorded=self._results,
            if_worker_dies="the job is lost: taking it deletes it",
            settings="its defaults: journal_mode=WAL, SQLite's own synchronous=FULL; "
            + ("the handler returns True" if self._results else "the handler returns None, which it does not store"),
            version=f"huey {version('huey')}, SQLite {sqlite3.sqlite_version}",
        )

    def _open(self, handle: Handle) -> None:
        self._huey = SqliteHuey("jobs", filename=str(self.place.folder / "huey.db"))
        results = self._results

        @self._huey.task(name="handle")  # type: ignore[untyped-decorator]
        def handle_job(number: int, text: str) -> bool | None:
            handle(number)
            return True if results else None

        self._task = handle_job

    def prepare(self, jobs: int) -> None:
        self.open_producer()
        self._huey.storage.conn.execute("PRAGMA synchronous = OFF")
        for number in range(jobs):
            self.add(number)
        self.close_producer()

    def start(self, handle: Handle) -> None:
        self._open(handle)
        assert self._huey.storage.conn.execute("PRAGMA synchronous").fetchone()[0] == 2
        self._consumer = Consumer(self._huey, workers=self.slots)
        self._consumer.start()

    def stop(self) -> None:
        self._consumer.stop(graceful=True)

    def ended(self) -> int | None:
        if self._results:
            return int(self._huey.storage.result_store_size())
        if self._huey.storage.queue_size():
            raise AssertionError("tasks are still in the queue")
        return None

    def open_producer(self) -> None:
        self._open(ignore)

    def add(self, number: int) -> None:
        self._task(number, prompt(number))

    def close_producer(self) -> None:
        self._huey.storage.close()
