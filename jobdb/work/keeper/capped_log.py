"""The log of an attempt: a file of bounded size that has the first and the last part of the output.

Used by the keeper; imports only the standard library. The file is appended to until it reaches its limit. From then on
its first part stays, and what follows is a line that says how much is missing and then the latest output; this second
part is kept in memory and written over the file's end at most once a second, and at the end. A disk that is full, or a
missing folder, costs output, which is counted; nothing is raised.
"""

from __future__ import annotations

import os
from contextlib import suppress

TAIL_BYTES = 4096
"""The number of bytes of the latest output that are kept for the report of the attempt's end."""
_LAST_PART_BYTES = 1 << 20
_WRITE_INTERVAL_SEC = 1.0
_NOTE_BYTES = 80


class CappedLog:
    """The log of an attempt.

    Args:
        path: the file; None to keep only the tail in memory.
        max_bytes: the largest size of the file.

    Attributes:
        received: how many bytes of output there were.
        tail: the last `TAIL_BYTES` of them.
    """

    def __init__(self, path: bytes | None, max_bytes: int) -> None:
        self.received = 0
        self.tail = b""
        self._max = max(max_bytes, 0)
        self._last_part = min(self._max // 2, _LAST_PART_BYTES)
        self._fd = -1
        self._size = 0
        """The size of the file, as far as it was written by this object or was there before."""
        self._before = 0
        self._first_part: int | None = None
        """Where the first part ends, once there is more than fits; None while everything fits."""
        self._latest = bytearray()
        """The last part, and up to as much before it, which is cut off now and then."""
        self._kept_last = 0
        """The number of bytes of the last part that are in the file."""
        self._written_at = 0.0
        self._is_dirty = False
        if path is not None:
            with suppress(OSError):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._fd = os.open(path, flags, 0o600)
                self._size = self._before = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        """Take output."""
        self.received += len(data)
        self.tail = (self.tail + data)[-TAIL_BYTES:] if len(data) < TAIL_BYTES else data[-TAIL_BYTES:]
        if self._first_part is None:
            data = self._append(data)
        if data:
            self._keep(data)

    @property
    def file_bytes(self) -> int:
        """Return how many bytes of output are in the file."""
        first = self._size if self._first_part is None else self._first_part
        return max(0, first - self._before) + self._kept_last

    @property
    def dropped_bytes(self) -> int:
        """Return how many bytes of output are not in the file."""
        return self.received - self.file_bytes

    def write_due_in(self, now: float) -> float | None:
        """Return the seconds until `write_last_part` should be called; None if there is nothing to write."""
        return max(0.0, self._written_at + _WRITE_INTERVAL_SEC - now) if self._is_dirty else None

    def write_last_part(self, now: float) -> None:
        """Write the latest output over the file's end, behind a line that says how much is missing.

        Args:
            now: monotonic seconds.
        """
        self._written_at = now
        self._is_dirty = False
        if self._first_part is None or self._fd < 0:
            return
        data = bytes(self._latest)
        room = self._last_part - _NOTE_BYTES
        # On a full disk, what the file has already can still be overwritten.
        for allowed in (room, self._size - self._first_part - _NOTE_BYTES):
            if allowed <= 0:
                continue
            kept = data[-allowed:]
            kept = kept[kept.find(b"\n") + 1 :] if len(kept) < len(data) and kept.find(b"\n") < 1024 else kept
            missing = self.received - max(0, self._first_part - self._before) - len(kept)
            note = b"\n[jobdb: %d bytes of output are missing here]\n" % missing if missing else b""
            if self._overwrite(note + kept):
                self._kept_last = len(kept)
                return

    def close(self) -> None:
        """Write what is to be written, and close the file."""
        if self._is_dirty:
            self.write_last_part(0.0)
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _append(self, data: bytes) -> bytes:
        """Append what fits, and return the rest, which is the begin of the last part."""
        fits = data[: max(0, self._max - self._size)]
        written = 0
        try:
            while self._fd >= 0 and written < len(fits):
                written += os.pwrite(self._fd, fits[written:], self._size + written)
        except OSError:
            pass
        self._size += written
        if written < len(data):
            self._begin_last_part()
        return data[written:]

    def _begin_last_part(self) -> None:
        """Take the end of the file as the begin of the last part."""
        self._first_part = max(self._before, self._size - min(self._size // 2, self._last_part))
        with suppress(OSError):
            if self._fd >= 0 and self._size > self._first_part:
                self._keep(os.pread(self._fd, self._size - self._first_part, self._first_part))

    def _keep(self, data: bytes) -> None:
        self._is_dirty = self._fd >= 0
        self._latest += data
        if len(self._latest) > 2 * self._last_part:
            del self._latest[: len(self._latest) - self._last_part]

    def _overwrite(self, content: bytes) -> bool:
        assert self._first_part is not None
        written = 0
        try:
            while written < len(content):
                written += os.pwrite(self._fd, content[written:], self._first_part + written)
            os.ftruncate(self._fd, self._first_part + len(content))
        except OSError:
            self._size = max(self._size, self._first_part + written)
            return False
        self._size = self._first_part + len(content)
        return True
