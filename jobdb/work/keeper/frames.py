"""The frames between a worker and a keeper: four bytes of length, one of kind, and the content.

Used by both sides: by ``client.py`` in the worker, by ``server.py`` and ``attempt.py`` in the keeper. Contents are
written with ``marshal``, since both ends are the same interpreter, started by the same user, and it is there without an
import. Only the content of LINES and LOG are plain bytes.
"""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# From the worker to the server: this byte alone, with the descriptors of the keeper's end and of a launch.
START = b"s"

# From the worker to the keeper.
EXTEND = b"E"  # the new deadline
TERMINATE = b"T"  # the grace in seconds
KILL = b"K"
LOG = b"N"  # bytes for the log

# From the keeper to the worker.
HELLO = b"H"  # the keeper's process id, always the first frame
STARTED = b"S"  # the agent's process id
LINES = b"L"  # whole lines of the channel
ACTIVITY = b"A"
BLOCKED = b"B"  # the process id that is waited for
ENDED = b"X"  # a dict, the fields of messages.Ended; always the last frame

_VERSION = 4
_HEADER = 5


def encode(kind: bytes, content: Any = None) -> bytes:
    """Return a frame; ``bytes`` are sent as they are for LINES and LOG."""
    body = content if isinstance(content, bytes) else marshal.dumps(content, _VERSION)
    return len(body).to_bytes(4, "big") + kind + body


class FrameReader:
    """Takes pieces of a stream and returns the whole frames in it."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, piece: bytes) -> list[tuple[bytes, object]]:
        """Return the frames that are complete now, each as its kind and its content."""
        self._unread += piece
        found: list[tuple[bytes, object]] = []
        begin = 0
        while len(self._unread) - begin >= _HEADER:
            end = begin + _HEADER + int.from_bytes(self._unread[begin : begin + 4], "big")
            if end > len(self._unread):
                break
            kind = bytes(self._unread[begin + 4 : begin + _HEADER])
            body = bytes(self._unread[begin + _HEADER : end])
            found.append((kind, body if kind in (LINES, LOG) else marshal.loads(body)))
            begin = end
        del self._unread[:begin]
        return found
