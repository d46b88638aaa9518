"""The path of a read: the mutex, the reading connection, the check of its snapshot; and the wait for changes.

Called by `TransactionScope`, which runs one transaction, and by the store. Path and connection are created when they
are first needed: most programs that publish never read.
"""

from __future__ import annotations

import time
from contextlib import suppress
from os import getpid
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import apsw

from .connections import close_without_checkpoint, roll_back
from .error_translation import translate
from .mutex import MutexBlock
from .snapshot_check import (
    BACKFILL_ATTEMPTED,
    MX_FRAME,
    SALT,
    Snapshot,
    check_snapshot,
    require_read_mark,
)
from .transaction import SqliteTransaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...system.interrupt_safe_flag import Flag
    from .connections import BusyWait
    from .fork import Lifetime
    from .mutex import Mutex, MutexHold
    from .replacement_guard import ReplacementGuard
    from .wal_watch import WalWatch

_FIRST_PAUSE_SEC, _LONGEST_PAUSE_SEC = 0.001, 0.02
_POLL_FIRST_SEC = 0.005
"""The time for which a commit is looked for whose write may have come before the wait."""
_POLL_AFTER_WRITE_SEC = 0.05
"""The time after a write to the WAL for which its commit is looked for."""
_ASK_SQLITE_SEC = 0.25
"""The interval at which SQLite is asked for changes although nobody has written to the WAL."""
_LOOK_AT_FLAG_SEC = 0.05


class ReadPath:
    """The reading side of an open store.

    Args:
        path: the database file.
        connect: opens the connection.
        mutex: keeps threads apart; its ``undo`` calls `undo`.
        lifetime: tells whether the store may be used.
        busy_wait: the connection's busy handler.
        guard: detects that the files were replaced.
        wal_index: the WAL's index, see `snapshot_check`; None where there is none.
        clock: Unix time in milliseconds.

    Attributes:
        connection: the connection that reads; None before the first read.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], apsw.Connection],
        mutex: Mutex,
        lifetime: Lifetime,
        *,
        busy_wait: BusyWait,
        guard: ReplacementGuard,
        wal_index: memoryview | None,
        clock: Callable[[], int],
    ) -> None:
        self.path = path
        self.mutex = mutex
        self.connection: apsw.Connection | None = None
        self._connect = connect
        self.lifetime = lifetime
        self._busy_wait = busy_wait
        self._guard = guard
        self._wal_index = wal_index
        self._clock = clock
        self._wal_watches: list[WalWatch] = []  # that no thread uses now
        self._cannot_watch = False
        self._snapshot: Snapshot = (0, 0)  # of the current transaction; under the mutex

    def begin(self, hold: MutexHold, started: float) -> SqliteTransaction:
        """Acquire the mutex and begin a read transaction; the caller undoes it if this raises.

        Args:
            hold: the block's hold on the mutex.
            started: when the block began to wait, by ``time.monotonic()``.

        Raises:
            Busy: this thread is already inside a read.
            DatabaseReplaced, StorageFailed: the files were replaced, or the disk failed.
            apsw.Error: SQLite refuses to begin.
        """
        self.mutex.acquire(hold, None)
        if self.lifetime.closed:  # it was closed while this waited
            self.lifetime.require_usable()
        self._busy_wait.started = started
        connection = self.connection or self._open()
        connection.execute("BEGIN")
        if monotonic() >= self._guard.read_valid_until:
            self._guard.check_transaction(connection)
        wal_index = self._wal_index
        if wal_index is not None:  # note_snapshot, spelled out: a call takes longer
            self._snapshot = wal_index[MX_FRAME], wal_index[SALT]
        return SqliteTransaction(connection, self._clock)

    def commit(self) -> int:
        """End the transaction; return 0, since a read needs no sync.

        Raises:
            Busy: the read has lost its lock, and others have moved past its snapshot.
        """
        if getpid() != self.lifetime.pid:
            self.lifetime.require_usable()
        wal_index = self._wal_index
        if wal_index is not None:  # check_snapshot, spelled out
            snapshot = self._snapshot
            if wal_index[BACKFILL_ATTEMPTED] > snapshot[0] or wal_index[SALT] != snapshot[1]:
                require_read_mark(self.path)
        assert self.connection is not None
        self.connection.execute("COMMIT")
        return 0

    def before_undo(self, kind: type[BaseException]) -> None:
        """Check the snapshot of a verb that has failed: its data may have been inconsistent.

        Raises:
            Busy: the read has lost its snapshot.
        """
        if self._wal_index is not None and issubclass(kind, Exception):
            check_snapshot(self.path, self._wal_index, self._snapshot)

    def after_commit(self, _number: int) -> None:
        """Do nothing: a read has nothing to make durable."""

    def after_refusal(self) -> None:
        """Do nothing: a reader that acts on what it has read syncs on its own, see `WritePath.sync`."""

    def undo(self) -> None:
        """Roll back a transaction that is open. Idempotent."""
        if self.connection is not None and getpid() == self.lifetime.pid:
            roll_back(self.connection)

    def _open(self) -> apsw.Connection:
        if self.connection is None:
            self._guard.check_all()
            opened = self._connect()
            if not self._guard.intact():  # the name may lead to another file by now
                close_without_checkpoint(opened)
                self._guard.check_after_commit()
            self.connection = opened
        return self.connection

    def find_problems(self, *, full: bool) -> list[str]:
        """Return the problems found in the file; arguments and errors as for `SqliteStore.integrity`."""
        from .integrity import find_problems

        try:
            with MutexBlock(self.mutex):
                self._busy_wait.started = monotonic()
                return find_problems(self._open(), self.path, self._wal_index, full=full)
        except apsw.Error as error:
            raise translate(error, self.path, 0.0) from error

    # -- changes

    def data_version(self) -> int:
        """Return a number that changes when another connection has committed."""
        self.lifetime.require_usable()
        if monotonic() >= self._guard.write_valid_until:
            self._guard.check_all()
        with MutexBlock(self.mutex):
            self._busy_wait.started = monotonic()
            try:
                # Not apsw's data_version(): SQLITE_FCNTL_DATA_VERSION reads no file and stays as it was at the
                # connection's last read, so a waiting reader would never notice anything.
                row = self._open().execute("PRAGMA data_version").fetchone()
                assert row is not None
                return int(row[0])
            except apsw.Error as error:
                raise translate(error, self.path, 0.0) from error

    def wait_for_change(self, seen: int, timeout_sec: float, *, wake: Flag | None = None) -> int:
        """Wait until `data_version` differs from ``seen``, or for ``timeout_sec``; return the current one.

        ``wake`` is a flag that ends the wait when it is set.

        SQLite has no notifications. Where the kernel tells of writes to the WAL, this waits for one; otherwise, and
        just after one, it polls, at intervals that grow from 1 ms to 20 ms.
        """
        watch = self._take_watch()
        try:
            version = self._wait_for_change(seen, monotonic() + timeout_sec, watch, wake)
        except BaseException:
            if watch is not None:
                watch.close()  # now: the traceback keeps this frame's names alive
            raise
        if watch is not None:
            self._wal_watches.append(watch)
        return version

    def close_watches(self) -> None:
        """Release the watches of the WAL that no thread uses; the others end with their waits."""
        while self._wal_watches:
            with suppress(IndexError):
                self._wal_watches.pop().close()

    def _wait_for_change(self, seen: int, deadline: float, watch: WalWatch | None, wake: Flag | None) -> int:
        polls_until, pause = monotonic() + _POLL_FIRST_SEC, _FIRST_PAUSE_SEC
        while True:
            if watch is not None:
                watch.forget()
            version = self.data_version()
            now = monotonic()
            if version != seen or now >= deadline or (wake is not None and wake.is_set()):
                return version
            if watch is None or now < polls_until:
                rest = time.sleep if wake is None else wake.wait
                rest(min(pause, deadline - now))
                pause = min(pause * 1.2, _LONGEST_PAUSE_SEC)
            elif self._wait_for_write(watch, min(deadline, now + _ASK_SQLITE_SEC), wake):
                polls_until, pause = monotonic() + _POLL_AFTER_WRITE_SEC, _FIRST_PAUSE_SEC

    def _wait_for_write(self, watch: WalWatch, until: float, wake: Flag | None) -> bool:
        """Wait for a write to the WAL; return whether there was one."""
        while (left := until - monotonic()) > 0:
            if watch.wait(left if wake is None else min(left, _LOOK_AT_FLAG_SEC)):
                return True
            if wake is not None and wake.is_set():
                return False
        return False

    def _take_watch(self) -> WalWatch | None:
        """Return a watch of the WAL that no other thread uses; None where there is none."""
        try:
            return self._wal_watches.pop()
        except IndexError:
            if self._wal_index is None or self._cannot_watch:
                return None
        from .wal_watch import WalWatch

        try:
            return WalWatch(Path(f"{self.path}-wal"))
        except OSError:
            self._cannot_watch = True
            return None
