"""Keeping the WAL short: when it is copied into the database.

SQLite's own automatic checkpoint is off: it would run the whole inside the write lock. A WAL starts over when all of it
has been copied and no reader needs it any more. Source: https://sqlite.org/wal.html
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import apsw

from ...errors import Busy, StorageFailed
from .gate import jitter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .gate import Gate

_LONG_BYTES = 512 * 1024
"""Some thirty events: reading that much takes half a millisecond, copying it some milliseconds."""

_CLOSE_SEC = 0.1
"""So long a close waits for those who write or copy; when they have not ended then, one of them will be the last."""


def wal_is_long(database: Path) -> bool:
    """Whether whoever closes a database last should copy its WAL in any case.

    A process that opens it alone reads all of the WAL, and cannot know what an earlier one has copied of it. Were it
    left by each of them, it would never start over.
    """
    try:
        return os.stat(f"{database}-wal").st_size > _LONG_BYTES
    except OSError:
        return False


class CheckpointSchedule:
    """Decides when a commit is followed by a checkpoint.

    From ``soft_pages`` on, one is run after the gate was left, beside the other writers. It cannot finish while they
    write, so from ``hard_pages`` on one is run before the gate is left: little remains to copy then, and the next
    writer starts the WAL over.
    """

    def __init__(self, soft_pages: int, run: Callable[[], None]) -> None:
        self.pages = 0
        self.soft_pages = soft_pages
        self.hard_pages = soft_pages * 2
        self._run = run
        self._next = soft_pages

    def note_wal_length(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        """Note the length of the WAL, in pages, after a commit: SQLite's WAL hook."""
        self.pages = pages
        return apsw.SQLITE_OK

    def before_release(self) -> None:
        if self.pages >= self.hard_pages and self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages

    def after_release(self) -> None:
        if self.pages < self.soft_pages:
            self._next = self.soft_pages
        elif self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages // 2


class Checkpointer:
    """Copies the WAL into the database. Under the writer's mutex.

    Args:
        writer: the connection that writes.
        gate: the gate; None where the database has none.
    """

    def __init__(self, writer: apsw.Connection, gate: Gate | None) -> None:
        self._writer = writer
        self._gate = gate

    def wal_is_suspect(self) -> bool:
        """Whether a sync of the WAL failed: until it is written again, copying from it could ruin the database."""
        return self._gate is not None and self._gate.page.wal_suspect

    def lock(self) -> bool:
        """Keep others from copying; False when somebody is at it."""
        return self._gate is None or self._gate.lock_checkpoint()

    def unlock(self) -> None:
        """Let others copy."""
        if self._gate is not None:
            self._gate.unlock_checkpoint()

    def lock_for_close(self) -> bool:
        """Keep others from copying and from writing, before the last connection copies the WAL and removes it.

        Should this process's locks be dropped meanwhile, another one may open the database: what it commits after the
        WAL was removed is refused, what it commits before would be lost.

        Returns:
            False when somebody else copies or writes, and so has the database open.
        """
        if self._gate is None:
            return True
        deadline = time.monotonic() + _CLOSE_SEC
        try:
            self._gate.acquire(time.monotonic(), _CLOSE_SEC)
        except (Busy, StorageFailed):
            return False
        while not self.lock():
            if time.monotonic() > deadline:
                self._gate.release_if_acquired()
                return False
            time.sleep(jitter(1e-3, 2e-3))
        return True

    def unlock_after_close(self) -> None:
        """Let others copy and write. It can be called again."""
        self.unlock()
        if self._gate is not None:
            self._gate.release_if_acquired()

    def run(self) -> None:
        """Copy what can be copied now. What fails is tried again after a later commit, which stands in the WAL."""
        try:
            if not self.wal_is_suspect() and self.lock():
                self._copy()
        except apsw.IOError:
            # Perhaps its sync of the WAL failed, and no other will report that again.
            if self._gate is not None:
                self._gate.page.mark_wal_suspect()
        except apsw.Error:
            pass  # another process is at it
        finally:
            self.unlock()

    def run_blocking(self, timeout_sec: float) -> tuple[int, int]:
        """Copy what can be copied; return the WAL's length and what of it is copied, in pages.

        Args:
            timeout_sec: how long to wait for somebody else who is at it, in seconds.

        Raises:
            apsw.BusyError: the limit is over.
            apsw.Error: the disk failed.
        """
        deadline = time.monotonic() + timeout_sec
        while True:
            try:
                if self.lock():
                    return self._copy()
                if time.monotonic() > deadline:
                    raise apsw.BusyError("somebody else copies the log")
            except apsw.BusyError:
                if time.monotonic() > deadline:
                    raise
            finally:
                self.unlock()
            time.sleep(jitter(1e-3, 5e-3))

    def _copy(self) -> tuple[int, int]:
        return self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
