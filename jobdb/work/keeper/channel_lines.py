"""Whole lines of the pieces that are read from an agent's channel.

Used by the keeper; imports only the standard library. Several processes of an agent may write at once: lines of up to
``PIPE_BUF`` bytes arrive in one piece, longer ones may be mixed up by the kernel.
"""

from __future__ import annotations

MAX_LINE_BYTES = 256 << 10
CUT_LINE_MARK = b"\0"
"""The first byte of a line that stands for one that was too long; no valid line begins with it."""
_CUT_LINE_BYTES = 200


class LineBuffer:
    """Collects pieces, and returns the lines that are complete."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipped = 0
        """The number of bytes of the current line that were dropped, since it is too long."""

    def feed(self, piece: bytes) -> bytes:
        """Return the lines that the piece completes, each with its newline; empty if there are none.

        Args:
            piece: at most `MAX_LINE_BYTES`.
        """
        if b"\n" not in piece:
            self._extend(piece)
            return b""
        first, _, rest = piece.partition(b"\n")
        self._extend(first)
        end = rest.rfind(b"\n") + 1
        lines = self._take_line() + rest[:end]
        self._extend(rest[end:])
        return lines

    def finish(self) -> bytes:
        """Return the last line, which has no newline of its own; empty if there is none."""
        return self._take_line() if self._partial else b""

    def _extend(self, piece: bytes) -> None:
        self._partial += piece
        if len(self._partial) > MAX_LINE_BYTES:
            self._skipped += len(self._partial) - _CUT_LINE_BYTES
            del self._partial[_CUT_LINE_BYTES:]

    def _take_line(self) -> bytes:
        line = bytes(self._partial)
        if self._skipped:
            size = len(line) + self._skipped
            line = CUT_LINE_MARK + b"a line of %d bytes, which is too long: " % size + line[:_CUT_LINE_BYTES]
        self._partial.clear()
        self._skipped = 0
        return line + b"\n"
