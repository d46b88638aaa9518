"""Length-prefixed frames on a stream, which separate messages in a pipe and rows in a temporary file.

Called by the reader processes on both sides of their pipes, and by the report for its rows.
"""

from __future__ import annotations

import struct
from typing import Protocol

_LENGTH = struct.Struct("<I")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Writable(Protocol):
    def write(self, content: bytes, /) -> object: ...


def write_frame(stream: _Writable, content: bytes) -> None:
    """Write one frame; the caller has to flush."""
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)


def read_frame(stream: _Readable) -> bytes:
    """Return the content of the next frame.

    Raises:
        EOFError: the stream ends before it, or within it.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content
