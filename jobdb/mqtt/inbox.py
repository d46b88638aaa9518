"""What has come from a broker and waits to be accepted, within bounds of number and bytes.

Whoever may publish on a topic can send more than is accepted in the same time. What came at QoS 0 was promised to
nobody and is dropped when the inbox is full. At QoS 1 the network thread waits for room, so that nothing more is read,
and the broker keeps the rest; it does not wait so long that the broker would take the connection for dead. Put into by
the network thread, taken from by the intake's.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from .connection import KEEPALIVE_SEC, Message

MOST_MESSAGES = 10_000
MOST_BYTES = (8 * 1_048_576, 32 * 1_048_576)
_OVERHEAD_BYTES = 512
LONGEST_WAIT_SEC = KEEPALIVE_SEC / 3


class InboxFull(Exception):
    """A message at QoS 1 found no room in time; the connection ends, and the broker sends it again."""


class Inbox:
    """A bounded queue of messages.

    Args:
        most_messages: how many it holds at QoS 0, and as many again at QoS 1.
        most_bytes: how many bytes it holds at QoS 0, and at QoS 1 beside that.
        longest_wait_sec: how long a message at QoS 1 waits for room, in seconds.
    """

    def __init__(
        self,
        *,
        most_messages: int = MOST_MESSAGES,
        most_bytes: tuple[int, int] = MOST_BYTES,
        longest_wait_sec: float = LONGEST_WAIT_SEC,
    ) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._longest_wait_sec = longest_wait_sec
        self._messages: deque[Message] = deque()
        self._count = [0, 0]
        self._bytes = [0, 0]
        self._room = threading.Condition()
        self._dropped = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Take a message in, or drop it where it came at QoS 0 and there is no room.

        Raises:
            InboxFull: it came at QoS 1, and no room was made in time.
        """
        kept = int(message.qos > 0)
        deadline: float | None = None
        with self._room:
            while self._is_full(kept) and not self._closed:
                if not kept:
                    self._dropped += 1
                    return
                now = time.monotonic()
                deadline = now + self._longest_wait_sec if deadline is None else deadline
                if now >= deadline:
                    raise InboxFull(
                        f"{len(self._messages)} messages wait, and none could be accepted for "
                        f"{self._longest_wait_sec:g} s"
                    )
                self._room.wait(deadline - now)
            self._count[kept] += 1
            self._bytes[kept] += _size(message)
            self._messages.append(message)

    def first(self, most_messages: int, most_bytes: int) -> list[Message]:
        """Return the oldest messages, as many as fit into the bounds and at least one; they stay until ``remove``."""
        found: list[Message] = []
        size = 0
        with self._room:
            for message in self._messages:
                size += _size(message)
                if found and (size > most_bytes or len(found) >= most_messages):
                    break
                found.append(message)
        return found

    def remove(self, count: int) -> None:
        """Take out the oldest messages."""
        with self._room:
            for _ in range(count):
                message = self._messages.popleft()
                kept = int(message.qos > 0)
                self._count[kept] -= 1
                self._bytes[kept] -= _size(message)
            self._room.notify_all()

    def take_dropped(self) -> int:
        """Return how many messages were dropped since this was last asked."""
        with self._room:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def close(self) -> None:
        """Let nobody wait for room any more."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def _is_full(self, kept: int) -> bool:
        return self._count[kept] >= self._most_messages or self._bytes[kept] >= self._most_bytes[kept]


def _size(message: Message) -> int:
    return len(message.payload) + len(message.topic) + _OVERHEAD_BYTES
