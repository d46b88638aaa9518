"""The sync that makes commits durable after the gate is released: early lock release and group commit.

Called by the write path after each commit; created by the store. Calls ``fdatasync`` and the shared page, never SQLite.

Prior art: "early lock release" (DeWitt et al. 1984; Shore-MT) and the group commit of PostgreSQL and InnoDB. A commit
with ``synchronous=NORMAL`` has written its frames to the WAL but not synced them. One ``fdatasync`` of the ``-wal``
makes every frame before it durable, so one process syncs for all who wait. A checkpoint syncs the WAL before it copies
frames, and the database before the WAL restarts, so a synced commit is never lost again.

Rejected: ``synchronous=FULL``, which syncs inside the write lock, one commit at a time.
Sources: https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous
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

_CHUNK_BYTES = 1 << 20
_GROUP_COMMITS = 6
"""While other writers are about to commit, up to this many commits share one sync."""
_GROUP_WAIT_SEC = 0.002
"""The longest a commit waits for others to share its sync."""
_MAX_SLEEP_SEC = 0.01
"""A syncing process that is killed wakes nobody, so waiters check again after this time."""
_STALL_TIMEOUT_SEC = 1.0
"""After this time a syncing process counts as stopped, and its waiters sync on their own."""


class WalSync:
    """The ``-wal`` file of an open database, synced through a descriptor of its own.

    SQLite takes no POSIX locks on this file, so opening and closing it is harmless, and no ``flock``, so that one is
    held by the process that syncs for the others.

    Args:
        database: the database file, open in WAL mode.
        page: the memory that the writers share.

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
        self._mutex = threading.RLock()  # reentrant: a signal handler may sync while its thread does
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
        """Open the folder in advance: if no descriptor were left after a commit, its outcome would be unknown."""
        try:
            return move_above_stdio(os.open(self._wal.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            os.close(self._fd)
            raise StorageFailed(
                f"cannot open {self._wal.parent}: {error.strerror}; check its owner and mode, and the disk"
            ) from error

    def sync(self) -> None:
        """Return once everything written to the WAL before the call is durable, by a sync that began after it.

        Raises:
            SyncFailed: the disk did not confirm it. Linux reports such a failure once and then forgets it, so every
                later call raises too: a success after a failure would prove nothing.
        """
        page = self._page
        required_syncs = page.successful_syncs + 2
        stall_deadline = time.monotonic() + _STALL_TIMEOUT_SEC
        while page.successful_syncs < required_syncs:
            seen = page.syncs
            with self._mutex:
                if self._try_group_sync(stall_deadline):
                    return
            page.wait_for_sync(seen, _MAX_SLEEP_SEC)

    def sync_commit(self, number: int) -> None:
        """Return once a commit is durable, by a sync of this process or another that began after the commit.

        Args:
            number: what :meth:`SharedPage.note_commit` returned for it.

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
        """Return whether to leave the sync to a writer that will commit next: it will cover this commit too."""
        page = self._page
        return page.has_waiters and page.committed - page.synced < _GROUP_COMMITS

    def _try_group_sync(self, stall_deadline: float) -> bool:
        """Sync for all who wait; return False while another process is doing so.

        Args:
            stall_deadline: when to stop waiting for another process, by ``time.monotonic()``.
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
                # Without the lock a sync of one's own is as good. An error of an earlier sync is reported on every
                # descriptor that was open by then.
                self._flush()
                return True
            covered = page.committed
            self._flush()
            if not page.wal_suspect:
                page.note_sync(covered)
            page.count_sync()
        except BaseException:
            # in any case: an exception may have arrived just after the lock was acquired
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            page.count_sync()
            page.wake_sync_waiters()
            raise
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        page.wake_sync_waiters()
        return True

    def _reopen_after_rewrite(self) -> None:
        """Reopen the file if another process has repaired it, so that the old failure is not reported again here."""
        rewrites = self._page.rewrites
        if rewrites != self._rewrites and self._failure is None:
            try:
                reopened = self._open()
                found = os.fstat(reopened)
                if file_id(found) != self.identity:
                    os.close(reopened)
                    raise StorageFailed(f"{self._wal} was replaced while it was open")
            except StorageFailed as error:
                raise SyncFailed(
                    f"{error}. The last commit was written but may not be durable; read the state before you go on"
                ) from error
            os.close(self._fd)
            self._fd, self._rewrites = reopened, rewrites

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
        """Raise the SyncFailed of an earlier failure, if there was one."""
        if self._failure is None:
            return
        raise SyncFailed(
            f"the disk did not confirm a write to {self._wal}: {self._failure.strerror}. The commit may be lost by a "
            "power failure",
            advice="check the disk, open a new registry and read the state before you go on",
            command="check the disk and read the state before you go on",
        ) from self._failure

    def rewrite(self) -> None:
        """Write the same bytes of the whole WAL again, and sync it. The caller holds the write lock.

        Raises:
            SyncFailed: the disk did not confirm it.
        """
        with self._mutex:
            try:
                for offset in range(0, os.fstat(self._fd).st_size, _CHUNK_BYTES):
                    os.pwrite(self._fd, os.pread(self._fd, _CHUNK_BYTES, offset), offset)
            except OSError as error:
                self._failure = error
            self._flush()

    def _sync_directory(self) -> None:
        """Make the name of the WAL durable: this process may just have created it."""
        os.fsync(self._folder)
        self._close_folder()

    def _close_folder(self) -> None:
        if self._folder >= 0:
            try:
                os.close(self._folder)
            finally:
                self._folder = -1

    def close(self) -> None:
        """Close the descriptor, which releases the lock of a sync."""
        try:
            self._close_folder()
        finally:
            if self._fd >= 0:
                try:
                    os.close(self._fd)
                finally:
                    self._fd = -1  # it is closed even if close reports an error
