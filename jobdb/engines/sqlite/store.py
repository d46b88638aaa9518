"""The SQLite store: it opens and closes a database, and owns the paths through which the verbs read and write.

Called by the verbs; created by ``open.py``, and by ``auxiliary.py`` for tickets. Calls the other modules of this
package, never the verbs.

The verbs above it know only the `Store` and `Transaction` protocols. Two connections, each under a mutex: `WritePath`
writes; `ReadPath` opens a second one when it is first needed, and reads.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Any

import apsw

from ...errors import DatabaseReplaced, StorageFailed
from ...filesystem.unsafe_files import refuse_hard_links
from ...system.descriptor_shortage import shortage_error
from ...system.identifiers import FileId, boot_id
from ..traits import Traits
from . import fork, open_files
from .checkpoints import Checkpointer, CheckpointSchedule, wal_is_long
from .connections import BusyWait, close_without_checkpoint, connect
from .error_translation import translate
from .gate import Gate
from .mutex import Mutex, MutexBlock
from .pragmas import Setting, refuse_wal_reset_bug, settings_for
from .replacement_guard import ReplacementGuard
from .transaction_scopes import TransactionScope
from .wal_sync import WalSync
from .write_path import WritePath

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...filesystem.placement import Placement
    from ...system.interrupt_safe_flag import Flag
    from ..stable_events import StableEvents
    from ..store import Row
    from .read_path import ReadPath

CHECKPOINT_PAGES = 1000


class SqliteStore:
    """An open SQLite database.

    Args:
        path: the database file; it exists.
        journal: "wal" or "delete", as the file system policy decided.
        durability: "full" or "normal" (no sync before the answer: a power failure may lose the last commits).
        busy_sec: how long a writer waits for its turn before it raises Busy, in seconds.
        clock: Unix time in milliseconds.
        checkpoint_pages: WAL length, in pages, from which checkpoints are run.
        placement: the folder's placement, for the doctor; None if it was not determined.

    Raises:
        Busy, DatabaseReplaced, StorageFailed, Unusable: it cannot be opened; nothing of it stays open.
    """

    traits = Traits(presigns=True, stores_nul=True)

    def __init__(
        self,
        path: Path,
        *,
        journal: str,
        durability: str,
        busy_sec: float,
        clock: Callable[[], int],
        checkpoint_pages: int = CHECKPOINT_PAGES,
        placement: Placement | None = None,
    ) -> None:
        self.path = path.absolute()
        self.journal = journal
        self.durability = durability
        self.busy_sec = busy_sec
        self.clock = clock
        self.placement = placement
        self._lifetime = fork.Lifetime(self.path)
        refuse_hard_links(self.path)
        self._group_commit = journal == "wal" and hasattr(os, "fdatasync") and boot_id() != ""
        self._open_file = open_files.register(self.path)
        self._wal_sync: WalSync | None = None
        self._gate: Gate | None = None
        self._wal_index: memoryview | None = None
        self._read_path: ReadPath | None = None
        self._fully_closed = False
        self._mutex = Mutex(str(self.path), self._undo_write)
        self._reader_mutex = Mutex(str(self.path), self._undo_read)
        self._busy_wait = BusyWait(busy_sec, gated=self._group_commit, owner=self)
        self._reader_busy_wait = BusyWait(busy_sec, gated=self._group_commit, owner=self)
        writer: apsw.Connection | None = None
        guard: ReplacementGuard | None = None
        try:
            if journal == "wal":
                refuse_wal_reset_bug()
            self._writer = writer = self._connect(self._busy_wait)
            if journal == "wal":
                self._wal_index = open_files.guard_locks(self._open_file, self.path).wal_index
            if self._group_commit:
                self._gate = Gate(self.path)
            self._checkpointer = Checkpointer(self._writer, self._gate)
            checkpoints = CheckpointSchedule(checkpoint_pages, self._checkpointer.run)
            if self._gate is not None:
                self._writer.set_wal_hook(checkpoints.note_wal_length)
                if durability == "full":
                    self._wal_sync = WalSync(self.path, self._gate.page)
            self._replacement_guard = guard = self._guard_files()
            self._write_path = WritePath(
                self.path,
                self._writer,
                self._mutex,
                self._lifetime,
                busy_wait=self._busy_wait,
                busy_sec=busy_sec,
                gate=self._gate,
                wal_sync=self._wal_sync,
                guard=self._replacement_guard,
                checkpoints=checkpoints,
                clock=clock,
            )
            fork.register(self)
        except BaseException:
            self._fully_closed = self._lifetime.closed = True
            try:
                self._close_after_failed_open(writer, guard)
            finally:
                open_files.unregister(self._open_file)
            raise

    @property
    def file(self) -> SqliteStore:
        """The store itself: the database is one file."""
        return self

    @property
    def identity(self) -> FileId:
        """The device and inode of the database file that was opened."""
        return self._open_file.identity

    # -- opening and closing

    def _connect(self, busy_wait: BusyWait) -> apsw.Connection:
        return connect(
            self.path, journal=self.journal, settings=self._settings(), busy_wait=busy_wait, busy_sec=self.busy_sec
        )

    def _connect_reader(self) -> apsw.Connection:
        return self._connect(self._reader_busy_wait)

    def _settings(self) -> list[Setting]:
        return settings_for(self.journal, group_commit=self._group_commit, durability=self.durability)

    def _guard_files(self) -> ReplacementGuard:
        """Guard the files that the names lead to now, which must be those that SQLite has opened."""
        guard = ReplacementGuard(self.path, wal=self.journal == "wal", gate=self._gate is not None)
        if not guard.matches(self._open_file.identity, None if self._wal_sync is None else self._wal_sync.identity):
            guard.close()
            raise DatabaseReplaced(
                f"{self.path} was replaced while it was being opened; nothing was done", advice="try again"
            )
        return guard

    def _close_after_failed_open(self, writer: apsw.Connection | None, guard: ReplacementGuard | None) -> None:
        """Close what was opened: a connection left to the garbage collector would be closed at any moment."""
        if self._wal_sync is not None:
            self._wal_sync.close()
        if self._gate is not None:
            self._gate.close()
        if guard is not None:
            guard.close()
        if writer is not None:
            close_without_checkpoint(writer)

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database. Idempotent; does nothing in a forked child.

        No ``PRAGMA optimize``: statistics of a small table that has grown since can turn an index search into a scan.
        Without them the planner uses the indexes that every statement was written for.

        Args:
            checkpoint: the last connection copies the WAL into the database and removes it. Otherwise a short WAL is
                left for the next process that opens the database.

        Raises:
            StorageFailed: the disk reported an error; the database is closed nevertheless.
        """
        if self._fully_closed or os.getpid() != self._lifetime.pid:
            return
        self._lifetime.closed = True
        with MutexBlock(self._mutex), MutexBlock(self._reader_mutex):
            if not self._fully_closed:
                self._shut_down(checkpoint)

    def _shut_down(self, checkpoint: bool) -> None:
        """Run every step, even if earlier ones failed; each can be run again."""
        failures: list[Exception] = []
        interruption: BaseException | None = None
        self._busy_wait.expire()
        self._reader_busy_wait.expire()
        for step in (
            self._close_reader,
            lambda: self._close_writer(checkpoint),
            self._replacement_guard.close,
            lambda: None if self._wal_sync is None else self._wal_sync.close(),
            lambda: None if self._gate is None else self._gate.close(),
            lambda: open_files.unregister(self._open_file),
        ):
            try:
                try:
                    step()
                except (apsw.Error, OSError):
                    raise
                except BaseException as error:
                    interruption = error
                    step()
            except (apsw.Error, OSError) as failure:
                failures.append(failure)
        self._fully_closed = True
        if interruption is not None:
            raise interruption
        if failures:
            raise StorageFailed(
                f"{self.path} is closed, but the disk reported an error ({failures[0]}): earlier commits are durable "
                "only as far as the disk keeps them. Check the disk and the system log, and run 'jobdb doctor'"
            ) from failures[0]

    def _close_reader(self) -> None:
        if self._read_path is None:
            return
        self._read_path.close_watches()
        reader = self._read_path.connection
        if reader is not None:
            with contextlib.suppress(apsw.ConnectionClosedError):
                reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # if at all, the writer runs it
            reader.close()

    def _close_writer(self, checkpoint: bool) -> None:
        # SQLite removes the WAL by its name, which may be another database's by now.
        keep_wal = (
            not self._replacement_guard.intact()
            or self._checkpointer.wal_is_suspect()
            or not (checkpoint or wal_is_long(self.path))
            or not self._checkpointer.lock_for_close()
        )
        try:
            if keep_wal:
                self._writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            else:
                open_files.release_locks(self._open_file)
        except apsw.ConnectionClosedError:
            return  # an earlier close that was interrupted had come this far
        finally:
            self._writer.close()
            self._checkpointer.unlock_after_close()

    def check(self) -> None:
        """Refuse work in a forked child or after the close, before any call into SQLite.

        Raises:
            ForkedRegistry: another process opened it.
            InvalidInput: it is closed.
        """
        self._lifetime.require_usable()

    # -- fork

    @property
    def open_file(self) -> open_files.OpenFile:
        """Its entry in `open_files`."""
        return self._open_file

    @property
    def is_fully_closed(self) -> bool:
        """True if nothing of the store is open any more."""
        return self._fully_closed

    @property
    def mutexes(self) -> tuple[Mutex, Mutex]:
        """The mutexes that keep threads out of its connections."""
        return self._mutex, self._reader_mutex

    def detach_after_fork(self) -> object:
        """Release the gate in a forked child, so that it does not stay locked when the parent dies.

        Returns:
            The objects that must never be destroyed in the child.
        """
        try:
            if self._gate is not None:
                self._gate.close()
        finally:
            if self._wal_sync is not None:
                self._wal_sync.close()
        return self._writer, None if self._read_path is None else self._read_path.connection

    # -- transactions

    def write(self) -> TransactionScope:
        """Return a context manager for one immediate transaction, durable once the block has been exited.

        Raises:
            Busy: another writer held the lock for longer than ``busy_sec``.
            StorageFailed: the disk is full or failed; nothing was written.
            SyncFailed: written, but the disk did not confirm it.
        """
        return TransactionScope(self._write_path)

    def read(self) -> TransactionScope:
        """Return a context manager for one read transaction, which sees one snapshot of the database."""
        return TransactionScope(self._read_path or self._create_read_path())

    def _undo_write(self) -> None:
        """Undo an abandoned write; the mutex is never acquired before there is a write path."""
        self._write_path.undo()

    def _undo_read(self) -> None:
        if self._read_path is not None:
            self._read_path.undo()

    def _create_read_path(self) -> ReadPath:
        """Create the read path when it is first needed: most commands that publish never read.

        Raises:
            StorageFailed: no file descriptor is left to import it.
        """
        self.check()
        try:
            from .read_path import ReadPath
        except (ImportError, OSError) as error:
            raise shortage_error(error) from error
        with MutexBlock(self._reader_mutex):
            if self._read_path is None:
                self._read_path = ReadPath(
                    self.path,
                    self._connect_reader,
                    self._reader_mutex,
                    self._lifetime,
                    busy_wait=self._reader_busy_wait,
                    guard=self._replacement_guard,
                    wal_index=self._wal_index,
                    clock=self.clock,
                )
            return self._read_path

    def sync(self) -> None:
        """Return once everything committed before the call is durable; see `WritePath.sync`."""
        self._write_path.sync()

    def checkpoint(self) -> tuple[int, int]:
        """Copy as much of the WAL as possible; return its length and the length copied, in pages."""
        self.check()
        self._replacement_guard.check_all()
        self.sync()
        with MutexBlock(self._mutex):
            started = time.monotonic()
            self._busy_wait.started = started
            try:
                return self._checkpointer.run_blocking(self.busy_sec)
            except apsw.Error as error:
                raise translate(error, self.path, time.monotonic() - started) from error

    # -- inspection

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Run an ad-hoc read-only SELECT; return the column names and at most ``limit`` rows."""
        from .query import run_query

        self.check()
        self._replacement_guard.check_all()
        return run_query(self.path, sql, limit=limit, timeout_sec=timeout_sec)

    def describe(self) -> str:
        """Return a description for people: engine, version, file and journal."""
        return f"SQLite {apsw.sqlite_lib_version()}, {self.path}, journal {self.journal}"

    def settings(self) -> dict[str, Any]:
        """Return the settings in effect, read from the connection."""
        self.check()
        names = [setting.pragma for setting in self._settings()]
        with MutexBlock(self._mutex):
            found: dict[str, Any] = {name: self._writer.pragma(name) for name in ("journal_mode", *names)}
        return {**found, "group_commit": self._group_commit}

    def integrity(self, *, full: bool) -> list[str]:
        """Return the problems found in the file; empty if it is sound.

        Args:
            full: also compare the indexes with their tables, and check the foreign keys.
        """
        self.check()
        self._replacement_guard.check_all()
        return (self._read_path or self._create_read_path()).find_problems(full=full)

    # -- changes

    def data_version(self) -> int:
        """Return a number that changes when another connection has committed."""
        return (self._read_path or self._create_read_path()).data_version()

    def wait_for_change(self, seen: int, timeout_sec: float, *, wake: Flag | None = None) -> int:
        """Wait until `data_version` differs from ``seen``, or for ``timeout_sec``; return the current one."""
        return (self._read_path or self._create_read_path()).wait_for_change(seen, timeout_sec, wake=wake)

    def stable_events(self) -> StableEvents:
        """Return that the order of all events is final: ids are allocated under the write lock."""
        from ..stable_events import StableEvents

        return StableEvents(2**62, math.inf)
