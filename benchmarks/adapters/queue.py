"""The common part of the adapters of queues: huey, litequeue, persist-queue and simplebroker.

Called by those four. They have messages with a status, but no numbered events of a message and no batch verbs; a
claimed message is kept as the key that its end needs.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import deque
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from .. import sample_data
from .base import NO_BATCH, Adapter

NO_EVENTS = "has messages with a status, but no numbered events of a message"


class Closable(Protocol):
    def close(self) -> Any: ...


Opened = TypeVar("Opened", bound=Closable)
Key = TypeVar("Key")


class QueueAdapter(Adapter, Generic[Opened, Key]):
    """An adapter of one opened queue."""

    unsupported: ClassVar[dict[str, str]] = {
        "publish": NO_EVENTS,
        "accept": NO_EVENTS,
        "register_100": NO_BATCH,
        "publish_100": NO_EVENTS,
        "accept_100": NO_EVENTS,
    }

    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._source = random.Random()
        self._number = 0
        self._opened: Opened | None = None
        self._claimed: deque[Key] = deque()

    @property
    def _queue(self) -> Opened:
        assert self._opened is not None
        return self._opened

    @abstractmethod
    def _connect(self) -> Opened:
        """Open the queue in the folder, and create it if it is not there."""

    def open(self, worker: int, workers: int) -> None:
        self._opened = self._connect()

    def close(self) -> None:
        self._queue.close()
        self._claimed.clear()

    def _next_record(self) -> dict[str, Any]:
        """Return the record of another job."""
        self._number += 1
        return sample_data.record(self._source, self._number)

    @abstractmethod
    def register(self) -> int: ...

    @abstractmethod
    def claim(self) -> int: ...

    @abstractmethod
    def complete(self) -> int: ...

    def life(self) -> int:
        self.register()
        return self.claim() and self.complete()
