"""Making commits durable after the lock is released.

A commit with ``synchronous=NORMAL`` has written its frames but not synced them. One ``fdatasync`` of the ``-wal``
file makes every frame before it durable, so one process syncs for all who wait (early lock release, group commit). A
checkpoint syncs the WAL before it copies frames and the database before the WAL starts over, so what was synced once
is never lost again. Source: https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import StorageFailed, SyncFailed
from ...filesystem.unsafe_files import open_private_file
from ...system.identifiers import file_id
from ...system.stdio_descriptors import move_above_stdio

if TYPE_CHECKING:
    from .shared_page import SharedPage

_PIECE = 1 << 20
_GROUP_COMMITS = 6
"""While other writers are about to commit, so many commits wait for one sync."""
_GROUP_WAIT_SEC = 0.002
"""And no longer than this."""
_MAX_SLEEP_SEC = 0.01
"""A syncing process that is killed wakes nobody: whoever waits for it looks again after this time."""
_STALL_TIMEOUT_SEC = 1.0
"""After this time a syncing process is taken for stopped, and whoever waits for it syncs on its own."""


class WalSync:
    """Syncs the ``-wal`` file through a descriptor of its own. The file carries no POSIX locks, so opening and closing
    it is harmless, and SQLite uses no ``flock``: that one is taken by the process that syncs for the others.

    Args:
        database: the database file, open in WAL mode.
        page: what the writers tell each other.

    Attributes:
        identity: the file's device and inode.
    """

    def __init__(self, database: Path, page: SharedPage) -> None:
        self._database = database
        self._wal = Path(f"{database}-wal")
        self._page = page
        self._rewrites = page.rewrites
        self._fd = self._open()
        found = os.fstat(self._fd)
        self.identity = file_id(found)
        self._mutex = threading.RLock()  # a signal handler may sync while its thread does
        self._failure: OSError | None = None
        self._stalled_sync: int | None = None
        self._folder = self._open_folder()

    def _open(self) -> int:
        try:
            return move_above_stdio(open_private_file(self._wal, os.O_RDWR, database=self._database))
        except OSError as error:
            raise StorageFailed(
                f"cannot open {self._wal}: {error.strerror}; check its owner and mode, and the disk"
            ) from error

    def _open_folder(self) -> int:
        """Now: after a commit there may be no file descriptor left, and the commit would be in doubt for that alone."""
        try:
            return move_above_stdio(os.open(self._wal.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            os.close(self._fd)
            raise StorageFailed(
                f"cannot open {self._wal.parent}: {error.strerror}; check its owner and mode, and the disk"
            ) from error

    def sync(self) -> None:
        """Returns when all that was written to the WAL before the call is durable: by a sync that began after it.

        Raises:
            SyncFailed: the disk did not confirm. Linux reports such a failure once and then forgets it, so every
                later call raises too: a success after a failure would prove nothing.
        """
        page = self._page
        enough = page.successful_syncs + 2
        stall_deadline = time.monotonic() + _STALL_TIMEOUT_SEC
        while page.successful_syncs < enough:
            seen = page.syncs
            with self._mutex:
                if self._try_group_sync(stall_deadline):
                    return
            page.wait_for_sync(seen, _MAX_SLEEP_SEC)

    def sync_commit(self, number: int) -> None:
        """Returns when a commit is durable: by a sync of this process or of another that began after the commit.

        Args:
            number: what :meth:`SharedPage.note_commit` gave for it.

        Raises:
            SyncFailed: as for :meth:`sync`.
        """
        page = self._page
        began = time.monotonic()
        while True:
            seen = page.syncs
            if page.synced >= number:
                return
            left = began + _GROUP_WAIT_SEC - time.monotonic()
            if left <= 0 or not self._expects_more_commits():
                with self._mutex:
                    if page.synced >= number or self._try_group_sync(began + _STALL_TIMEOUT_SEC):
                        return
                left = _MAX_SLEEP_SEC
            page.wait_for_sync(seen, left)

    def _expects_more_commits(self) -> bool:
        """Whether the sync is better left to a writer that commits next: it will serve this commit too."""
        page = self._page
        return page.has_waiters and page.committed - page.synced < _GROUP_COMMITS

    def _try_group_sync(self, stall_deadline: float) -> bool:
        """Syncs and says so to the others; False when another process is at it.

        Args:
            stall_deadline: the moment, by ``time.monotonic()``, from which another process is not waited for any more.
        """
        page = self._page
        self._reopen_after_rewrite()
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    if time.monotonic() < stall_deadline and page.syncs != self._stalled_sync:
                        return False
                    self._stalled_sync = page.syncs
                # No lock to be had: a sync of one's own is as good. The error of a sync that began before is reported
                # to every descriptor that was open by then.
                self._flush()
                return True
            covered = page.committed
            self._flush()
            if not page.wal_suspect:
                page.note_sync(covered)
            page.count_sync()
        except BaseException:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # ours or not: an exception may have come just after it was taken
            page.count_sync()
            page.wake_sync_waiters()
            raise
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        page.wake_sync_waiters()
        return True

    def _reopen_after_rewrite(self) -> None:
        """Opens the file anew when another process has mended it, lest the old failure be reported here once more."""
        rewrites = self._page.rewrites
        if rewrites != self._rewrites and self._failure is None:
            try:
                fresh = self._open()
                found = os.fstat(fresh)
                if file_id(found) != self.identity:
                    os.close(fresh)
                    raise StorageFailed(f"{self._wal} was replaced while it was open")
            except StorageFailed as error:
                raise SyncFailed(
                    f"{error}. The last commit was made and is not known to be durable; read the state before going on"
                ) from error
            os.close(self._fd)
            self._fd, self._rewrites = fresh, rewrites

    def _flush(self) -> None:
        self.refuse_after_failure()
        try:
            if self._folder >= 0:
                self._sync_directory()
            os.fdatasync(self._fd)
        except OSError as error:
            self._failure = error
            self._page.mark_wal_suspect()
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
        with self._mutex:
            try:
                for offset in range(0, os.fstat(self._fd).st_size, _PIECE):
                    os.pwrite(self._fd, os.pread(self._fd, _PIECE, offset), offset)
            except OSError as error:
                self._failure = error
            self._flush()

    def _sync_directory(self) -> None:
        """The WAL may have been created by us just now: its name must be durable too."""
        os.fsync(self._folder)
        self._close_folder()

    def _close_folder(self) -> None:
        if self._folder >= 0:
            try:
                os.close(self._folder)
            finally:
                self._folder = -1

    def close(self) -> None:
        """Closes the descriptor; the lock of a sync goes with it."""
        try:
            self._close_folder()
        finally:
            if self._fd >= 0:
                try:
                    os.close(self._fd)
                finally:
                    self._fd = -1  # closed also where that reports an error
