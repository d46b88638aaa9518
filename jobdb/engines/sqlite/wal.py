"""Making commits durable after the lock is released, and keeping the WAL short.

A commit with ``synchronous=NORMAL`` has written its frames but not synced them. One ``fdatasync`` of the ``-wal``
file makes every frame before it durable, so processes that wait at the same time share a disk flush (early lock
release). A checkpoint syncs the WAL before it copies frames and the database before the WAL starts over, so what was
synced once is never lost again. Source: https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import StorageFailed, SyncFailed

_PIECE = 1 << 20

if TYPE_CHECKING:
    from collections.abc import Callable

FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: fsync() there does not reach the platter, fcntl(F_FULLFSYNC) does."""


class WalSync:
    """The ``-wal`` file's own descriptor. It carries no POSIX locks, so opening and closing it is harmless."""

    def __init__(self, database: Path, on_failure: Callable[[], None]) -> None:
        self._wal = Path(f"{database}-wal")
        self._on_failure = on_failure
        try:
            self._fd = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StorageFailed(
                f"cannot open {self._wal}: {error.strerror}; check its owner and mode, and the disk"
            ) from error
        self._failure: OSError | None = None
        self._directory_synced = False

    def sync(self) -> None:
        """Returns when all that was committed before the call is durable.

        Raises:
            SyncFailed: the disk did not confirm. Linux reports such a failure once and then forgets it, so every
                later call raises too: a success after a failure would prove nothing.
        """
        if self._failure is None:
            try:
                if not self._directory_synced:
                    self._sync_directory()
                _flush(self._fd)
                return
            except OSError as error:
                self._failure = error
                self._on_failure()
        self.refuse_after_failure()

    def refuse_after_failure(self) -> None:
        """Raises the SyncFailed of an earlier failure, if there was one."""
        if self._failure is None:
            return
        raise SyncFailed(
            f"the disk did not confirm a write to {self._wal}: {self._failure.strerror}. The commit may be lost by a "
            "power failure; check the disk, open the registry anew and read the state before going on"
        ) from self._failure

    def rewrite(self) -> None:
        """Writes all of the WAL again, the same bytes, and syncs it. The caller holds the write lock.

        Raises:
            SyncFailed: the disk did not confirm.
        """
        try:
            for offset in range(0, os.fstat(self._fd).st_size, _PIECE):
                os.pwrite(self._fd, os.pread(self._fd, _PIECE, offset), offset)
        except OSError as error:
            self._failure = error
        self.sync()

    def _sync_directory(self) -> None:
        """The WAL may have been created by us just now: its name must be durable too."""
        folder = os.open(self._wal.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._directory_synced = True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _flush(fd: int) -> None:
    if FULL_SYNC is not None:
        fcntl.fcntl(fd, FULL_SYNC)
    else:
        os.fdatasync(fd)


class CheckpointSchedule:
    """Decides when a commit is followed by a checkpoint.

    From ``soft_pages`` on, one is run after the gate was left, beside the other writers. It cannot finish while they
    write, so from ``hard_pages`` on one is run before the gate is left: little remains to copy then, and the next
    writer starts the WAL over. SQLite's own automatic checkpoint is off: it would run the whole inside the lock.
    """

    def __init__(self, soft_pages: int, run: Callable[[], None]) -> None:
        self.pages = 0
        self.soft_pages = soft_pages
        self.hard_pages = soft_pages * 2
        self._run = run
        self._next = soft_pages

    def inside_gate(self) -> None:
        if self.pages >= self.hard_pages and self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages

    def outside_gate(self) -> None:
        if self.pages < self.soft_pages:
            self._next = self.soft_pages
        elif self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages // 2
