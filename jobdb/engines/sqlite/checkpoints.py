"""Checkpoints: the schedule by which the WAL is copied into the database, so that it stays short.

Called by the write path after each commit, and by the store on closing. SQLite's own automatic checkpoint is off: it
would run entirely inside the write lock. A WAL restarts when all of it has been copied and no reader needs it any more.
Source: https://sqlite.org/wal.html
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

_LONG_WAL_BYTES = 512 * 1024
"""Some thirty events: reading as much takes half a millisecond, copying it a few milliseconds."""

_CLOSE_SEC = 0.1
"""The time for which a close waits for writers and checkpoints. If they run longer, one of them will close last."""


def wal_is_long(database: Path) -> bool:
    """Return whether the last process to close a database should copy its WAL in any case.

    The first process to open a database reads the whole WAL, and cannot know how much of it an earlier one has copied.
    If each process left it behind, it would never restart.
    """
    try:
        return os.stat(f"{database}-wal").st_size > _LONG_WAL_BYTES
    except OSError:
        return False


class CheckpointSchedule:
    """The schedule of checkpoints after commits.

    From ``soft_pages`` on, a checkpoint runs after the gate was released, concurrently with other writers. It cannot
    finish while they write, so from ``hard_pages`` on one runs before the gate is released: little remains to be copied
    then, and the next writer restarts the WAL.

    Args:
        soft_pages: length of the WAL, in pages, from which checkpoints run.
        run: runs one.

    Attributes:
        pages: length of the WAL after the last commit, in pages.
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
        """Run a checkpoint if the WAL is so long that writers have to wait for it. The caller holds the gate."""
        if self.pages >= self.hard_pages and self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages

    def after_release(self) -> None:
        """Run a checkpoint if one is due."""
        if self.pages < self.soft_pages:
            self._next = self.soft_pages
        elif self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages // 2


class Checkpointer:
    """The checkpoints of one connection. The caller holds the write path's mutex.

    Args:
        writer: the connection that writes.
        gate: the gate; None where the database has none.
    """

    def __init__(self, writer: apsw.Connection, gate: Gate | None) -> None:
        self._writer = writer
        self._gate = gate

    def wal_is_suspect(self) -> bool:
        """Return whether a sync of the WAL failed: copying from it could corrupt the database until it is rewritten."""
        return self._gate is not None and self._gate.page.wal_suspect

    def lock(self) -> bool:
        """Keep others from running a checkpoint; return False when one is running."""
        return self._gate is None or self._gate.lock_checkpoint()

    def unlock(self) -> None:
        """Let others run a checkpoint. Idempotent."""
        if self._gate is not None:
            self._gate.unlock_checkpoint()

    def lock_for_close(self) -> bool:
        """Keep others from writing and from checkpoints, before the last connection copies the WAL and removes it.

        If this process's locks are dropped meanwhile, another process may open the database: a commit after the WAL was
        removed is refused, but one before that would be lost.

        Returns:
            False if another process writes or runs a checkpoint, and so has the database open.
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
        """Let others write and run checkpoints. Idempotent."""
        self.unlock()
        if self._gate is not None:
            self._gate.release_if_acquired()

    def run(self) -> None:
        """Copy as much as possible now. A failure is not an error: the WAL has the commit, and a later run retries."""
        try:
            if not self.wal_is_suspect() and self.lock():
                self._copy()
        except apsw.IOError:
            # Perhaps the checkpoint's sync of the WAL failed, and no other sync will report that again.
            if self._gate is not None:
                self._gate.page.mark_wal_suspect()
        except apsw.Error:
            pass  # another process is running one
        finally:
            self.unlock()

    def run_blocking(self, timeout_sec: float) -> tuple[int, int]:
        """Copy as much as possible; return the WAL's length and the length copied, in pages.

        Args:
            timeout_sec: how long to wait for a checkpoint of another process, in seconds.

        Raises:
            apsw.BusyError: the limit is reached.
            apsw.Error: the disk failed.
        """
        deadline = time.monotonic() + timeout_sec
        while True:
            try:
                if self.lock():
                    return self._copy()
                if time.monotonic() > deadline:
                    raise apsw.BusyError("another process is running a checkpoint")
            except apsw.BusyError:
                if time.monotonic() > deadline:
                    raise
            finally:
                self.unlock()
            time.sleep(jitter(1e-3, 5e-3))

    def _copy(self) -> tuple[int, int]:
        return self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
