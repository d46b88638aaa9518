"""The path of a write: the mutex, the gate, the writing connection, the sync of the WAL.

Called by `TransactionScope`, which runs one transaction, and by the store. The order for each commit:

    mutex → gate → BEGIN IMMEDIATE → the verb's statements → COMMIT → release of the gate → check of the files
    → fdatasync of the WAL (for all who wait for one) → the answer

An exception can interrupt any step, so nothing here records how far it came: `undo` goes by the real state (whether a
transaction is open, and whether the gate can be held). See `mutex`.
"""

from __future__ import annotations

from os import getpid
from time import monotonic
from typing import TYPE_CHECKING

import apsw

from .connections import roll_back
from .error_translation import translate
from .lock_holders import busy_error
from .mutex import MutexBlock
from .transaction import SqliteTransaction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .checkpoints import CheckpointSchedule
    from .connections import BusyWait
    from .fork import Lifetime
    from .gate import Gate
    from .mutex import Mutex, MutexHold
    from .replacement_guard import ReplacementGuard
    from .wal_sync import WalSync


class WritePath:
    """The writing side of an open store.

    Args:
        path: the database file.
        connection: the connection that writes.
        mutex: keeps threads apart; its ``undo`` calls `undo`.
        lifetime: tells whether the store may be used.
        busy_wait: the connection's busy handler.
        busy_sec: how long a writer waits for its turn, in seconds.
        gate: the queue of writers; None where the database has none.
        wal_sync: syncs the WAL after each commit; None if SQLite does, or if durability is "normal".
        guard: detects that the files were replaced.
        checkpoints: decides when a commit is followed by a checkpoint.
        clock: Unix time in milliseconds.
    """

    def __init__(
        self,
        path: Path,
        connection: apsw.Connection,
        mutex: Mutex,
        lifetime: Lifetime,
        *,
        busy_wait: BusyWait,
        busy_sec: float,
        gate: Gate | None,
        wal_sync: WalSync | None,
        guard: ReplacementGuard,
        checkpoints: CheckpointSchedule,
        clock: Callable[[], int],
    ) -> None:
        self.path = path
        self.mutex = mutex
        self._connection = connection
        self.lifetime = lifetime
        self._busy_wait = busy_wait
        self._busy_sec = busy_sec
        self._gate = gate
        self._wal_sync = wal_sync
        self._guard = guard
        self._checkpoints = checkpoints
        self._clock = clock

    def begin(self, hold: MutexHold, started: float) -> SqliteTransaction:
        """Acquire mutex, gate and SQLite's write lock, in this order; the caller undoes it all if this raises.

        Args:
            hold: the block's hold on the mutex.
            started: when the block began to wait, by ``time.monotonic()``.

        Raises:
            Busy: another writer held one of them for too long.
            DatabaseReplaced, StorageFailed: the files were replaced, or the disk failed.
            SyncFailed: an earlier sync failed.
            apsw.Error: SQLite refuses to begin.
        """
        if self._wal_sync is not None:
            self._wal_sync.refuse_after_failure()
        if not self.mutex.acquire(hold, self._busy_sec):
            raise busy_error(self.path, monotonic() - started)
        if self.lifetime.closed:  # it was closed while this waited
            self.lifetime.require_usable()
        self._busy_wait.started = started
        if self._gate is not None:
            self._gate.acquire(started, self._busy_sec)
        guard, connection = self._guard, self._connection
        if monotonic() >= guard.write_valid_until:
            # before SQLite touches the -shm: accessing one that was truncated ends the process (SIGBUS)
            guard.check_all()
        connection.execute("BEGIN IMMEDIATE")
        if monotonic() >= guard.write_valid_until:
            guard.check_transaction(connection)
        return SqliteTransaction(connection, self._clock)

    def commit(self) -> int:
        """Commit and release the gate; return the commit's number for `after_commit`, 0 without a gate."""
        if getpid() != self.lifetime.pid:
            self.lifetime.require_usable()
        gate, checkpoints = self._gate, self._checkpoints
        if gate is None:
            self._connection.execute("COMMIT")
            checkpoints.before_release()
            number = 0
        else:
            gate.prepare_release()
            self._connection.execute("COMMIT")
            number = gate.page.note_commit()
            checkpoints.before_release()
            gate.release()
        checkpoints.after_release()
        # before the sync: after sleeping in it, the same check takes three times as long
        self._guard.check_after_commit()
        return number

    def undo(self) -> None:
        """Roll back a transaction that is open, and release the gate unless it was released. Idempotent."""
        if getpid() != self.lifetime.pid:
            return
        roll_back(self._connection)
        if self._gate is not None:
            self._gate.release_if_acquired()

    def before_undo(self, kind: type[BaseException]) -> None:
        """Do nothing: a failed write has read its data under the write lock."""

    def after_commit(self, number: int) -> None:
        """Return once a commit is durable.

        Args:
            number: what `commit` returned for it.

        Raises:
            SyncFailed: the disk did not confirm it.
        """
        if self._wal_sync is not None:
            self._wal_sync.sync_commit(number)
            self._repair_wal(self._wal_sync)

    def after_refusal(self) -> None:
        """Return once the commits on which a refusal is based are durable: one may still wait for its sync."""
        self.sync()

    def sync(self) -> None:
        """Return once everything committed before the call is durable, at durability "full".

        A reader that acts on what it has read calls it too: the commit may have been made by a process that is still
        waiting for its own sync.

        Raises:
            SyncFailed: the disk did not confirm it.
            DatabaseReplaced: the files were replaced.
        """
        if getpid() != self.lifetime.pid:
            self.lifetime.require_usable()
        if self._wal_sync is not None:
            self._wal_sync.sync()
            self._repair_wal(self._wal_sync)
        self._guard.check_after_commit()

    def _repair_wal(self, wal_sync: WalSync) -> None:
        """Make the WAL durable if a sync of it failed in some process.

        Linux marks the pages of a failed sync as clean: a later sync succeeds without writing them. So the whole WAL is
        written again, while nobody else can write to it.
        """
        gate = self._gate
        if gate is None or not gate.page.wal_suspect:
            return
        started = monotonic()
        try:
            with MutexBlock(self.mutex):
                self._busy_wait.started = started
                gate.acquire(started, self._busy_sec)
                self._connection.execute("BEGIN IMMEDIATE")
                if gate.page.wal_suspect:
                    wal_sync.rewrite()
                    gate.page.clear_wal_suspect()
        except apsw.Error as error:
            raise translate(error, self.path, monotonic() - started) from error
