"""The inbox: a bounded queue of messages between the network thread and the consumer's thread.

Used by the consumer: the connection's network thread fills it, the consumer's thread empties it. Never touches a
database. Anyone who may publish on a topic can send faster than events are accepted. If the queue is full, a message at
QoS 0, which has no delivery guarantee, is dropped. At QoS 1 the network thread waits for space, so that nothing more is
read and the broker keeps the rest; the wait is shorter than the time after which the broker considers the connection
dead.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from .connection import KEEPALIVE_SEC, Message

MAX_MESSAGES = 10_000
MAX_BYTES = (8 * 1_048_576, 32 * 1_048_576)
"""The capacity in bytes, for QoS 0 and for QoS 1."""
_OVERHEAD_BYTES = 512
MAX_WAIT_SEC = KEEPALIVE_SEC / 3


class InboxFull(Exception):
    """Raised when a message at QoS 1 finds no space in time; the connection ends, and the broker sends it again."""


class Inbox:
    """A bounded queue of messages.

    Args:
        max_messages: the capacity in messages, for QoS 0 and for QoS 1 each.
        max_bytes: the capacity in bytes, for QoS 0 and for QoS 1.
        max_wait_sec: how long a message at QoS 1 waits for space, in seconds.
    """

    def __init__(
        self,
        *,
        max_messages: int = MAX_MESSAGES,
        max_bytes: tuple[int, int] = MAX_BYTES,
        max_wait_sec: float = MAX_WAIT_SEC,
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_wait_sec = max_wait_sec
        self._messages: deque[Message] = deque()
        self._count = [0, 0]
        self._bytes = [0, 0]
        self._not_full = threading.Condition()
        self._dropped = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Add a message, or drop it if it came at QoS 0 and there is no space.

        Raises:
            InboxFull: it came at QoS 1, and there was no space in time.
        """
        qos_index = int(message.qos > 0)
        deadline: float | None = None
        with self._not_full:
            while self._is_full(qos_index) and not self._closed:
                if not qos_index:
                    self._dropped += 1
                    return
                now = time.monotonic()
                deadline = now + self._max_wait_sec if deadline is None else deadline
                if now >= deadline:
                    raise InboxFull(
                        f"{len(self._messages)} messages wait, and none could be accepted for {self._max_wait_sec:g} s"
                    )
                self._not_full.wait(deadline - now)
            self._count[qos_index] += 1
            self._bytes[qos_index] += _size(message)
            self._messages.append(message)

    def peek(self, max_messages: int, max_bytes: int) -> list[Message]:
        """Return the oldest messages within the limits, at least one; they stay in the queue until ``remove``."""
        found: list[Message] = []
        size = 0
        with self._not_full:
            for message in self._messages:
                size += _size(message)
                if found and (size > max_bytes or len(found) >= max_messages):
                    break
                found.append(message)
        return found

    def remove(self, count: int) -> None:
        """Remove the oldest messages."""
        with self._not_full:
            for _ in range(count):
                message = self._messages.popleft()
                qos_index = int(message.qos > 0)
                self._count[qos_index] -= 1
                self._bytes[qos_index] -= _size(message)
            self._not_full.notify_all()

    def pop_dropped_count(self) -> int:
        """Return how many messages were dropped since the last call."""
        with self._not_full:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def close(self) -> None:
        """End every wait for space, because nothing will be removed any more."""
        with self._not_full:
            self._closed = True
            self._not_full.notify_all()

    def _is_full(self, qos_index: int) -> bool:
        return self._count[qos_index] >= self._max_messages or self._bytes[qos_index] >= self._max_bytes[qos_index]


def _size(message: Message) -> int:
    return len(message.payload) + len(message.topic) + _OVERHEAD_BYTES
