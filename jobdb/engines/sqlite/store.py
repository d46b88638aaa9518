"""The SQLite store: connections, transactions and durability. The verbs above it know only ``Transaction``.

Two connections, each behind a mutex: one writes, one (opened when first needed) reads. A write goes
gate → BEGIN IMMEDIATE → the work → COMMIT → leave the gate → fdatasync of the WAL → answer.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Any

import apsw

from ...errors import DatabaseReplaced, StorageFailed, UnsafeFileSystem
from ..liveness import require_alive
from ..traits import StableEvents, Traits
from . import fork, open_files
from .checkpoints import Checkpointer, CheckpointSchedule, wal_is_long
from .error_translation import translate
from .gate import Gate, jitter
from .integrity import find_problems
from .mutex import Mutex, MutexBlock
from .pragmas import Setting, apply_settings, refuse_wal_reset_bug, settings_for
from .replacement_guard import ReplacementGuard, refuse_hard_links
from .shared_page import boot_id
from .transaction_scopes import ReadScope, WriteScope
from .wal_sync import WalSync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...filesystem.placement import Placement
    from ..store import Row

STATEMENT_CACHE = 200
CHECKPOINT_PAGES = 1000
_ALL_STABLE = StableEvents(2**62, math.inf)


class SqliteStore:
    """An open SQLite database.

    Args:
        path: the database file; it exists.
        journal: "wal" or "delete", as the file system policy decided.
        durability: "full" or "normal" (no sync before the answer: a power failure may lose the last commits).
        busy_sec: how long a writer waits its turn before it raises Busy, in seconds.
        statements: the named statements.
        clock: Unix time in milliseconds.
        checkpoint_pages: WAL length, in pages, from which checkpoints are run.
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
    ) -> None:
        self.path = path.absolute()
        self.journal = journal
        self.durability = durability
        self.busy_sec = busy_sec
        self.clock = clock
        self._pid = os.getpid()
        refuse_hard_links(self.path)
        self._group_commit = journal == "wal" and hasattr(os, "fdatasync") and boot_id() != ""
        self._open_file = open_files.add(self.path)
        self._wal: WalSync | None = None
        self._gate: Gate | None = None
        self._reader: apsw.Connection | None = None
        self._mutex = Mutex(str(self.path), self._undo_write)
        self._reader_mutex = Mutex(str(self.path), self._undo_read)
        self._busy_since = 0.0
        self._closed = False
        self._fully_closed = False
        self.placement: Placement | None = None
        try:
            if journal == "wal":
                refuse_wal_reset_bug()
            self._writer = self._connect()
            self._wal_index = open_files.guard_locks(self._open_file, self.path).wal_index if journal == "wal" else None
            if self._group_commit:
                self._gate = Gate(self.path)
            self._checkpointer = Checkpointer(self._writer, self._gate)
            self._checkpoints = CheckpointSchedule(checkpoint_pages, self._checkpointer.run)
            if self._gate is not None:
                self._writer.set_wal_hook(self._after_wal_commit)
                if durability == "full":
                    self._wal = WalSync(self.path, self._gate.page)
            self._replacement_guard = self._hold_files()
            fork.register(self)
        except BaseException:
            self._fully_closed = self._closed = True
            try:
                self._close_after_failed_open()
            finally:
                open_files.remove(self._open_file)
            raise

    @property
    def file(self) -> SqliteStore:
        """The store itself: the database is one file."""
        return self

    @property
    def identity(self) -> tuple[int, int]:
        """The device and inode of the database file that was opened."""
        return self._open_file.identity

    # -- opening and closing

    def _close_after_failed_open(self) -> None:
        """After opening failed half-way: a connection left to the garbage collector would be closed at any moment."""
        if self._wal is not None:
            self._wal.close()
        if self._gate is not None:
            self._gate.close()
        held: ReplacementGuard | None = getattr(self, "_replacement_guard", None)
        if held is not None:
            held.close()
        writer: apsw.Connection | None = getattr(self, "_writer", None)
        if writer is not None:
            writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            writer.close()

    def _connect(self) -> apsw.Connection:
        started = time.monotonic()
        while True:
            try:
                return self._try_to_connect(started)
            except apsw.BusyError as error:
                # Two that put a new file into WAL at the same moment: SQLite refuses one of them without waiting.
                waited = time.monotonic() - started
                if waited > self.busy_sec:
                    raise translate(error, self.path, waited) from error
                time.sleep(jitter(1e-3, 5e-3))
            except apsw.Error as error:
                raise translate(error, self.path, time.monotonic() - started) from error

    def _try_to_connect(self, started: float) -> apsw.Connection:
        connection = apsw.Connection(
            str(self.path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=STATEMENT_CACHE
        )
        try:
            connection.set_busy_handler(self._on_busy)
            self._busy_since = started
            if str(connection.pragma("journal_mode")).lower() != self.journal:
                connection.pragma("journal_mode", self.journal)
            apply_settings(connection, self._settings())
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _hold_files(self) -> ReplacementGuard:
        """What the names lead to now, which must be what SQLite was given to open."""
        held = ReplacementGuard(self.path, wal=self.journal == "wal", gate=self._gate is not None)
        if not held.matches(self._open_file.identity, None if self._wal is None else self._wal.identity):
            held.close()
            raise DatabaseReplaced(f"{self.path} was replaced at the moment of opening it; nothing was done. Try again")
        return held

    def _settings(self) -> list[Setting]:
        return settings_for(self.journal, group_commit=self._group_commit, durability=self.durability)

    def _read_connection(self) -> apsw.Connection:
        if self._reader is None:
            self._replacement_guard.check_all()
            reader = self._connect()
            if not self._replacement_guard.intact():  # by the same name it may be another file by now
                reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                reader.close()
                self._replacement_guard.check()
            self._reader = reader
        return self._reader

    def _on_busy(self, _count: int) -> bool:
        """Waits for a lock of a writer that does not use the gate, or of a recovery."""
        if time.monotonic() - self._busy_since > self.busy_sec:
            return False
        longest = 50e-6 if self._group_commit else 5e-3
        time.sleep(jitter(0.4 * longest, longest))
        return True

    def close(self, *, checkpoint: bool = True) -> None:
        """Closes; with ``checkpoint`` the last connection out copies the WAL into the database and removes it.

        Without it a short WAL stays for whoever opens the database next.

        No ``PRAGMA optimize``: statistics of a small table, gone stale when it has grown, can turn an index search
        into a scan. Without them the planner takes the indexes that every statement was written for.
        """
        if self._fully_closed or os.getpid() != self._pid:
            return
        self._closed = True
        with MutexBlock(self._mutex), MutexBlock(self._reader_mutex):
            if not self._fully_closed:
                self._shut_down(checkpoint)

    def _shut_down(self, checkpoint: bool) -> None:
        """Every step runs, whatever became of those before it; each can be run again."""
        failures: list[Exception] = []
        cut_off: BaseException | None = None
        self._busy_since = time.monotonic() - self.busy_sec
        for step in (
            self._close_reader,
            lambda: self._close_writer(checkpoint),
            self._replacement_guard.close,
            lambda: None if self._wal is None else self._wal.close(),
            lambda: None if self._gate is None else self._gate.close(),
            lambda: open_files.remove(self._open_file),
        ):
            try:
                try:
                    step()
                except (apsw.Error, OSError):
                    raise
                except BaseException as error:
                    cut_off = error
                    step()
            except (apsw.Error, OSError) as failure:
                failures.append(failure)
        self._fully_closed = True
        if cut_off is not None:
            raise cut_off
        if failures:
            raise StorageFailed(
                f"{self.path} is closed, and the disk reported while it was ({failures[0]}): what was answered before "
                "stands as far as the disk keeps it. Check the disk and the system log, and run 'jobdb doctor'"
            ) from failures[0]

    def _close_reader(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(apsw.ConnectionClosedError):
                self._reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # the writer does it, if anybody
            self._reader.close()

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
            return  # a close that was cut off had come so far
        finally:
            self._writer.close()
            self._checkpointer.unlock_after_close()

    def check(self) -> None:
        """Refuse work in a forked child or after close, before any call into SQLite.

        Raises:
            ForkedRegistry: this is not the process that opened it.
            InvalidInput: it is closed.
        """
        require_alive(
            self.path,
            opener_pid=self._pid,
            closed=self._closed,
            in_child=", which cannot use it, nor open the file anew: start the child with spawn or exec, or close the "
            "registry before the fork and open one in each process",
        )

    # -- fork

    @property
    def open_file(self) -> open_files.OpenFile:
        """What ``open_files.add`` gave."""
        return self._open_file

    @property
    def is_fully_closed(self) -> bool:
        """Whether it is closed to the end."""
        return self._fully_closed

    @property
    def mutexes(self) -> tuple[Mutex, Mutex]:
        """What keeps threads apart."""
        return self._mutex, self._reader_mutex

    def detach_after_fork(self) -> object:
        """In a forked child: lets go of the gate, lest it stay locked should the parent die.

        Returns:
            What must not be destroyed in the child.
        """
        try:
            if self._gate is not None:
                self._gate.close()
        finally:
            if self._wal is not None:
                self._wal.close()
        return self._writer, self._reader

    # -- transactions

    def write(self) -> WriteScope:
        """One immediate transaction, durable when the block has been left.

        Raises:
            Busy: another writer held the lock for longer than ``busy_sec``.
            StorageFailed: the disk is full or failed; nothing was written.
            SyncFailed: written, but the disk did not confirm it.
        """
        return WriteScope(self, self._mutex)

    def read(self) -> ReadScope:
        """One read transaction: what it sees is one moment's state."""
        return ReadScope(self, self._reader_mutex)

    def _commit(self) -> int:
        """Commits and leaves the gate; returns the commit's number for the sync that must follow."""
        gate, checkpoints = self._gate, self._checkpoints
        if gate is None:
            self._writer.execute("COMMIT")
            checkpoints.before_release()
            number = 0
        else:
            gate.prepare_release()
            self._writer.execute("COMMIT")
            number = gate.page.note_commit()
            checkpoints.before_release()
            gate.release()
        checkpoints.after_release()
        self._replacement_guard.check()  # before the sync: the sleep in it makes the same look cost three times as much
        return number

    def _undo_write(self) -> None:
        """Ends what a block that was not left may have left behind: its transaction, and its place in the gate."""
        if os.getpid() != self._pid:
            return
        _roll_back(self._writer)
        if self._gate is not None:
            self._gate.release_if_acquired()

    def _undo_read(self) -> None:
        if self._reader is not None and os.getpid() == self._pid:
            _roll_back(self._reader)

    def _check_journal_mode(self, connection: apsw.Connection) -> None:
        """Looks at what the transaction that has begun works on: whether it is still the same file and journal.

        An idle rollback journal holds no lock, so another process can put the database into WAL meanwhile.

        SQLite would follow it without a word, on a network file system too.
        """
        self._replacement_guard.check_all()
        if self.journal != "delete":
            return
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # the header is read with the first page
        if str(connection.pragma("journal_mode")).lower() != "delete":
            raise UnsafeFileSystem(
                f"{self.path} was put into WAL mode while this registry had it open with a rollback journal; nothing "
                "was written. Open a new one; if other hosts use it, stop them and run 'jobdb init --shared' first"
            )

    def sync(self) -> None:
        """Returns when everything committed before the call is durable, at durability "full".

        A reader that acts on what it read calls it too: the commit may have been made by a process that is still
        waiting for its own sync.
        """
        if os.getpid() != self._pid:
            self.check()
        if self._wal is not None:
            self._wal.sync()
            self._repair_wal(self._wal)
        self._replacement_guard.check()

    def _repair_wal(self, wal: WalSync) -> None:
        """Makes the WAL durable if some process's sync of it failed.

        Linux counts the pages of a failed sync as clean: a later sync succeeds and does not write them. So the whole
        WAL is written again, while nobody else can write to it.
        """
        gate = self._gate
        if gate is None or not gate.page.wal_suspect:
            return
        started = time.monotonic()
        try:
            with MutexBlock(self._mutex):
                self._busy_since = started
                gate.acquire(started, self.busy_sec)
                self._writer.execute("BEGIN IMMEDIATE")
                if gate.page.wal_suspect:
                    wal.rewrite()
                    gate.page.clear_wal_suspect()
        except apsw.Error as error:
            raise translate(error, self.path, time.monotonic() - started) from error

    # -- the WAL's length

    def _after_wal_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._checkpoints.pages = pages
        return apsw.SQLITE_OK

    # -- looking at it

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Runs one read-only SELECT of a person's; returns the columns' names and at most ``limit`` rows."""
        from .query import run_query

        self.check()
        self._replacement_guard.check_all()
        return run_query(self.path, sql, limit=limit, timeout_sec=timeout_sec)

    def describe(self) -> str:
        """What this is, for a person."""
        return f"SQLite {apsw.sqlite_lib_version()}, {self.path}, journal {self.journal}"

    def settings(self) -> dict[str, Any]:
        """The settings as they are in force, read from the connection."""
        self.check()
        names = [setting.pragma for setting in self._settings()]
        with MutexBlock(self._mutex):
            found: dict[str, Any] = {name: self._writer.pragma(name) for name in ("journal_mode", *names)}
        return {**found, "group_commit": self._group_commit}

    def integrity(self, *, full: bool) -> list[str]:
        """What is wrong with the file; empty when it is sound.

        Args:
            full: compare the indexes with their tables and follow the foreign keys too.
        """
        self.check()
        self._replacement_guard.check_all()
        try:
            with MutexBlock(self._reader_mutex):
                self._busy_since = time.monotonic()
                reader = self._read_connection()
                return find_problems(reader, self.path, self._wal_index, full=full)
        except apsw.Error as error:
            raise translate(error, self.path, 0.0) from error

    def checkpoint(self) -> tuple[int, int]:
        """Copies what can be copied of the WAL; returns its length and what of it is copied, in pages."""
        self.check()
        self._replacement_guard.check_all()
        self.sync()
        with MutexBlock(self._mutex):
            self._busy_since = started = time.monotonic()
            try:
                return self._checkpointer.run_blocking(self.busy_sec)
            except apsw.Error as error:
                raise translate(error, self.path, time.monotonic() - started) from error

    # -- news

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        self.check()
        if time.monotonic() >= self._replacement_guard.write_valid_until:
            self._replacement_guard.check_all()
        with MutexBlock(self._reader_mutex):
            self._busy_since = time.monotonic()
            try:
                # Not apsw's data_version(): SQLITE_FCNTL_DATA_VERSION looks at no file and stays as it was at the
                # connection's last read, so a waiting reader would never wake up.
                row = self._read_connection().execute("PRAGMA data_version").fetchone()
                assert row is not None
                return int(row[0])
            except apsw.Error as error:
                raise translate(error, self.path, 0.0) from error

    def wait_for_change(self, seen: int, timeout_sec: float) -> int:
        """Waits until ``data_version()`` differs from ``seen`` or the time is over; returns the present one.

        The sleeps grow from 1 ms to 20 ms: news within milliseconds while there is traffic, an idle CPU when not.
        """
        deadline = time.monotonic() + timeout_sec
        pause = 0.001
        while True:
            version = self.data_version()
            left = deadline - time.monotonic()
            if version != seen or left <= 0:
                return version
            time.sleep(min(pause, left))
            pause = min(pause * 1.2, 0.02)

    def stable_events(self) -> StableEvents:
        """Return that all events are: they get their ids under the write lock, so they appear in the order of these."""
        return _ALL_STABLE


def _roll_back(connection: apsw.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except apsw.Error:
        pass  # SQLite has rolled back by itself on a full disk or an I/O error
