"""The logs of attempts: their folder, and reading one while it is being written.

Called by the worker, which makes the folders, by ``jobdb logs`` and by the context of later attempts. Reads files only.

The keeper appends to a log until it is as large as it may be. From then on the first part stays, and behind it the
keeper writes, once a second, a note of how much is missing and the latest output, over what was there before, or into
a new file of the same name. A reader that only remembers its position would lose output or show it twice.
:class:`LogReader` keeps the end of what it has read, recognizes by the note what was dropped, and goes on from there.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import StorageFailed

if TYPE_CHECKING:
    from ..urls import DatabaseUrl

WINDOW_BYTES = 2 << 20
"""The number of bytes that are kept of what was read: more than the part of a log that is written again and again."""

_PIECE_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 16
_SETTLE_SEC = 0.01
_MAX_TRIES = 100
_MAX_NOTE_BYTES = 80
_note = re.compile(rb"\n\[jobdb: ([0-9]{1,19}) bytes of output are missing here\]\n")


def default_log_folder(url: DatabaseUrl, registry_id: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the folder of a registry's logs on this host: ``logs`` beside a SQLite database, else below the home.

    Args:
        url: the database.
        registry_id: the registry.
        environ: the environment variables; those of this process if None.

    Example:
        >>> from jobdb.urls import parse_url
        >>> default_log_folder(parse_url("/srv/jobs.db"), "0123")
        '/srv/logs'
        >>> default_log_folder(parse_url("postgresql://db/jobs"), "0123", {"XDG_STATE_HOME": "/home/me/.state"})
        '/home/me/.state/jobdb/logs/0123'
    """
    if url.path is not None:
        return os.path.join(os.path.dirname(os.path.abspath(url.path)), "logs")
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "jobdb", "logs", registry_id)


def make_log_folder(log: str) -> None:
    """Create the folder of an attempt's log, and missing ones above it, for this user alone.

    Args:
        log: the path of the log.

    Raises:
        StorageFailed: it cannot be created.
    """
    folder = os.path.dirname(log)
    try:
        os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
        os.makedirs(folder, 0o700, exist_ok=True)
    except OSError as problem:
        raise StorageFailed(
            f"the folder {folder} for logs cannot be created: {problem.strerror}",
            advice="create it yourself, or choose another folder",
            command="create it yourself, or choose another folder with --log-dir",
        ) from problem


class LogReader:
    """The output of an attempt, read from its log.

    Args:
        path: the log.

    Raises:
        OSError: it cannot be opened; FileNotFoundError if it does not exist.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = _open(path)
        self._end = 0
        """The position in the file up to which it was read."""
        self._window = b""
        """The bytes before that position."""

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def skip_to_last(self, lines: int) -> bool:
        """Skip what comes before the last lines; return whether that was anything.

        Args:
            lines: how many lines to keep.
        """
        position = _start_of_last(self._fd, lines)
        start = max(0, position - WINDOW_BYTES)
        self._window = _read(self._fd, start, position - start)
        self._end = start + len(self._window)
        return self._end > 0

    def read(self) -> Iterator[bytes]:
        """Yield the output that was written since the last call, without what was dropped meanwhile."""
        while True:
            self._reopen()
            size = os.fstat(self._fd).st_size
            start = self._end - len(self._window)
            if size < start:  # it was emptied: begin again
                self._end, self._window = 0, b""
                continue
            content = self._settled(start, min(size, self._end + _PIECE_BYTES) - start)
            if content.startswith(self._window):
                new = content[len(self._window) :]
                if not new:
                    return
            else:
                new = self._after_rewriting(content, start)
            self._end = start + len(content)
            self._window = content[-WINDOW_BYTES:]
            if new:
                yield new

    def _reopen(self) -> None:
        """Open the file that has the name now, if it is another one."""
        with suppress(FileNotFoundError):  # removed: what was opened is what there is
            if not os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(self._fd)):
                fd = _open(self._path)
                os.close(self._fd)
                self._fd = fd

    def _settled(self, start: int, length: int) -> bytes:
        """Return a part of the file as it is when nobody is just writing over it."""
        if length <= 0:
            return b""
        content = _read(self._fd, start, length)
        if content == self._window:
            return content
        for _ in range(_MAX_TRIES):
            time.sleep(_SETTLE_SEC)
            again = _read(self._fd, start, length)
            if again == content:
                break
            content = again
        return content

    def _after_rewriting(self, content: bytes, start: int) -> bytes:
        """Return what is new in a part of the file that was written over.

        Positions in the output, as if nothing had been dropped, tell what is new: the note says how many bytes are
        missing at its place, and before it nothing has changed.
        """
        old = self._window
        same = _common_prefix(old, content)
        note = _note_at(content, same)
        if note is None:  # another file, or not written by a keeper
            return content[same:]
        place = start + note.start()
        old_note = _note.match(old, note.start())
        seen = self._end
        if old_note is not None:
            seen = place + int(old_note[1]) + len(old) - old_note.end()
        first = place + int(note[1])
        if first <= seen:
            return content[note.end() + seen - first :]
        return b"\n[jobdb: %d bytes of output are missing here]\n" % (first - seen) + content[note.end() :]


def _note_at(content: bytes, place: int) -> re.Match[bytes] | None:
    """Return the note that includes a place; output before it may look like a note, too, and share its line feed."""
    found = _note.search(content, max(0, place - _MAX_NOTE_BYTES))
    while found is not None and found.start() <= place:
        if place < found.end():
            return found
        found = _note.search(content, found.start() + 1)
    return None


def last_lines(path: str, *, lines: int, max_bytes: int) -> bytes:
    """Return the last lines of a log, whole ones if they are not too long.

    Args:
        path: the log.
        lines: how many lines.
        max_bytes: how many bytes at most.

    Raises:
        OSError: it cannot be read.
    """
    fd = _open(path)
    try:
        size = os.fstat(fd).st_size
        first = _start_of_last(fd, lines)
        start = max(first, size - max_bytes)
        content = _read(fd, start, size - start)
    finally:
        os.close(fd)
    if start > first:
        _, _, rest = content.partition(b"\n")
        return rest or content
    return content


def _start_of_last(fd: int, lines: int) -> int:
    """Return where the last lines of a file begin; the last one need not be complete."""
    position = size = os.fstat(fd).st_size
    if lines <= 0:
        return size
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        block = _read(fd, start, position - start)
        end = len(block)
        if position == size and block.endswith(b"\n"):
            end -= 1  # it ends the last line, and begins none
        while (newline := block.rfind(b"\n", 0, end)) >= 0:
            lines -= 1
            if lines == 0:
                return start + newline + 1
            end = newline
        position = start
    return 0


def _open(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(22, "it is not a regular file", path)
    return fd


def _read(fd: int, start: int, length: int) -> bytes:
    pieces = []
    while length > 0 and (piece := os.pread(fd, length, start)):
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def _common_prefix(one: bytes, other: bytes) -> int:
    """Return the length of the common beginning, by halving: comparing in C is faster than a loop over bytes."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
