"""simplebroker: named queues in one SQLite file, with persistent=True, its setting for performance.

Called by harness.py. read_one() removes a message for good; move_one() to a second queue is what its authors recommend
for work that must survive its worker, and is used to claim a job where a job's whole life is measured.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from simplebroker import Queue, resolve_config
from simplebroker.ext import OperationalError

from .. import sample_data
from .base import LIFE_EVENTS, NO_BATCH, AdapterInfo
from .queue import QueueAdapter

_NO_ACCEPT = "verifies nothing and keeps no last_seq of a subscriber"


class Queues:
    """The named queues of one file, each opened when it is first used."""

    def __init__(self, path: Path, sync_mode: str) -> None:
        self._path = path
        self._config = resolve_config(override={"BROKER_SYNC_MODE": sync_mode})
        self._opened: dict[str, Queue] = {}

    def __getitem__(self, name: str) -> Queue:
        found = self._opened.get(name)
        if found is None:
            found = self._opened[name] = Queue(name, db_path=str(self._path), persistent=True, config=self._config)
        return found

    def close(self) -> None:
        for queue in self._opened.values():
            queue.close()
        self._opened.clear()


class Simplebroker(QueueAdapter[Queues, int]):
    unsupported: ClassVar[dict[str, str]] = {
        "accept": _NO_ACCEPT,
        "register_100": NO_BATCH,
        "publish_100": NO_BATCH,
        "accept_100": _NO_ACCEPT,
    }
    busy_errors = (OperationalError,)

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._running: list[str] = []

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        shipped = durability == "full"
        return AdapterInfo(
            label=f"simplebroker, {durability.upper()}",
            durability=durability,
            as_shipped=shipped,
            settings=f"persistent=True, WAL, SYNC_MODE={durability.upper()}"
            + (": its defaults" if shipped else " (it ships FULL)")
            + ", busy timeout 5 s",
            version=f"simplebroker {version('simplebroker')}",
            notes={
                "claim": "move_one to a second queue, as its authors advise for work that must not be lost",
                "complete": "delete(message_id)",
                "publish": "write to one queue per job: an ascending id, not gapless within the job, unsigned",
                "life": f"write, move_one, {LIFE_EVENTS} writes to the job's queue, delete",
                "list_page": "peek_many(limit) of the pending ones",
            },
        )

    def _connect(self) -> Queues:
        return Queues(self.folder / "broker.db", self.durability.upper())

    def prepare(self, size: int) -> None:
        kept: dict[str, list[tuple[str, int]]] = {"pending": [], "running": [], "done": []}
        queues = self._connect()
        first = queues["pending"].generate_timestamp()
        for number, record in enumerate(sample_data.records(size)):
            name = record["status"] if record["status"] in kept else "done"
            kept[name].append((json.dumps(record), first + number + 1))
        for name, messages in kept.items():
            for start in range(0, len(messages), 1000):
                queues[name].insert_messages(messages[start : start + 1000])
        queues.close()

    def open(self, worker: int, workers: int) -> None:
        super().open(worker, workers)
        self._running = [f"events-{worker}-{number}" for number in range(20)]
        for name in ("pending", "running"):
            _ = self._queue[name]

    def register(self) -> int:
        self._queue["pending"].write(json.dumps(self._next_record()))
        return 1

    def claim(self) -> int:
        moved = self._queue["pending"].move_one("running", with_timestamps=True)
        if moved is None:
            return 0
        self._claimed.append(int(moved[1]))
        return 1

    def publish(self) -> int:
        name = self._source.choice(self._running)
        self._queue[name].write(json.dumps(sample_data.wire_event(name, 0)))
        return 1

    def complete(self) -> int:
        if not self._claimed:
            return 0
        self._queue["running"].delete(message_id=self._claimed.popleft())
        return 1

    def list_page(self) -> int:
        return int(bool([json.loads(text) for text in self._queue["pending"].peek_many(sample_data.PAGE)]))

    def life(self) -> int:
        self.register()
        if not self.claim():
            return 0
        for _ in range(LIFE_EVENTS):
            self.publish()
        return self.complete()

    def prefill(self, operation: str, count: int) -> None:
        if operation == "complete":
            first = self._queue["running"].generate_timestamp()
            messages = [
                (json.dumps(sample_data.record(self._source, number)), first + number + 1) for number in range(count)
            ]
            self._queue["running"].insert_messages(messages)
            self._claimed.extend(key for _, key in messages)

    def reset_claims(self) -> None:
        for key in self._claimed:
            self._queue["running"].move_one("pending", exact_timestamp=key)
        self._claimed.clear()
