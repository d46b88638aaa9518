"""The blocks in which transactions run: what is taken on entering is given back, whatever ends the block and wherever.

Each step from the first lock on stands inside the ``try`` that lets go of everything, and letting go looks at the real
state (is a transaction open, may the gate be ours) instead of remembering how far it came. What is cut off twice, or at
the first step of ``__exit__``, is undone when the block is destroyed or by whoever wants the mutex next; see ``mutex``.
"""

from __future__ import annotations

import errno
import os
import sys
from time import monotonic
from typing import TYPE_CHECKING

import apsw

from ...errors import InvalidInput, Refused, StorageFailed
from .error_translation import translate
from .lock_holders import busy_error
from .mutex import MutexHold, undo_and_release
from .snapshot_check import BACKFILL_ATTEMPTED, MX_FRAME, SALT, require_reader_lock
from .transaction import SqliteTransaction

if TYPE_CHECKING:
    from types import TracebackType

    from .mutex import Mutex
    from .store import SqliteStore


class _Scope:
    """What both kinds of transactions have in common."""

    __slots__ = ("_at_start", "_hold", "_mutex", "_started", "_store")

    _at_start: tuple[int, int] | None
    _started: float

    def __init__(self, store: SqliteStore, mutex: Mutex) -> None:
        self._hold: MutexHold | None = None
        self._store = store
        self._mutex = mutex

    def _failed(self, failure: apsw.Error) -> Exception:
        return translate(failure, self._store.path, monotonic() - self._started)

    def _reraise(self, error: apsw.Error | OSError) -> None:
        """Raises the error for what SQLite or a lack of file descriptors has done to the block, and for no other."""
        if isinstance(error, apsw.Error):
            raise self._failed(error) from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise StorageFailed(
                f"this process could open no file during a verb on {self._store.path}: {error.strerror}; nothing was "
                "written. Close files or raise the limit (ulimit -n), and try again"
            ) from error


class _OpenScope(_Scope):
    """A block that was not left yet: when it is destroyed, it is undone.

    Leaving it makes it a `_ExitedScope`. Python drops what is raised in ``__del__``, so nothing may run when a block of
    the usual kind is destroyed: a Ctrl-C that came in there would be lost.
    """

    __slots__ = ()

    def __del__(self) -> None:
        hold: MutexHold | None = getattr(self, "_hold", None)  # none: cut off at the first step of __init__
        if hold is not None:
            undo_and_release(self._mutex, hold)


class _ExitedScope(_Scope):
    """A block that was left."""

    __slots__ = ()


class WriteScope(_OpenScope):
    """One immediate transaction, durable when the block has been left."""

    __slots__ = ()

    def __enter__(self) -> SqliteTransaction:
        store = self._store
        if store._closed or os.getpid() != store._pid:
            store.check()
        if store._wal is not None:
            store._wal.refuse_after_failure()
        hold = self._hold = MutexHold(sys._getframe(1))
        self._started = started = monotonic()
        try:
            if not self._mutex.acquire(hold, store.busy_sec):
                raise busy_error(store.path, monotonic() - started)
            if store._closed:  # while this one waited
                store.check()
            store._busy_since = started
            if store._gate is not None:
                store._gate.acquire(started, store.busy_sec)
            held, writer = store._replacement_guard, store._writer
            if monotonic() >= held.write_valid_until:
                held.check_all()  # SQLite's first access to a -shm that was cut ends the process by a signal
            writer.execute("BEGIN IMMEDIATE")
            if monotonic() >= held.write_valid_until:
                store._check_journal_mode(writer)
            transaction = SqliteTransaction(writer, store.clock)
            return transaction  # noqa: RET504 - what cuts off a call whose result is returned is outside of the try
        except apsw.Error as failure:
            undo_and_release(self._mutex, hold)
            raise self._failed(failure) from failure
        except BaseException:
            undo_and_release(self._mutex, hold)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        store, hold = self._store, self._hold
        assert hold is not None
        try:
            if kind is None:
                if os.getpid() != store._pid:
                    store.check()
                number = store._commit()
                self._mutex.release(hold)
            else:
                self._mutex.undo_and_release(hold)
            self.__class__ = _ExitedScope  # type: ignore[assignment]
        except apsw.Error as failure:
            undo_and_release(self._mutex, hold)
            raise self._failed(failure) from failure
        except BaseException:
            undo_and_release(self._mutex, hold)
            raise
        if kind is None:
            if store._wal is not None:
                store._wal.sync_commit(number)
                store._repair_wal(store._wal)
        elif isinstance(error, (Refused, InvalidInput)):
            store.sync()  # what the no was decided from may be a commit that is still waiting for its own sync
        elif isinstance(error, (apsw.Error, OSError)):
            self._reraise(error)


class ReadScope(_OpenScope):
    """One read transaction: what it sees is one moment's state."""

    __slots__ = ()

    def __enter__(self) -> SqliteTransaction:
        store = self._store
        if store._closed or os.getpid() != store._pid:
            store.check()
        hold = self._hold = MutexHold(sys._getframe(1))
        self._started = started = monotonic()
        try:
            self._mutex.acquire(hold, None)
            if store._closed:  # while this one waited
                store.check()
            store._busy_since = started
            reader = store._reader or store._read_connection()
            reader.execute("BEGIN")
            if monotonic() >= store._replacement_guard.read_valid_until:
                store._check_journal_mode(reader)
            wal_index = store._wal_index
            self._at_start = None if wal_index is None else (wal_index[MX_FRAME], wal_index[SALT])
            transaction = SqliteTransaction(reader, store.clock)
            return transaction  # noqa: RET504 - as above
        except apsw.Error as failure:
            undo_and_release(self._mutex, hold)
            raise self._failed(failure) from failure
        except BaseException:
            undo_and_release(self._mutex, hold)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        store, hold = self._store, self._hold
        assert hold is not None
        try:
            if kind is None and os.getpid() != store._pid:
                store.check()
            wal_index, at_start = store._wal_index, self._at_start
            if (
                at_start is not None
                and wal_index is not None
                and (wal_index[BACKFILL_ATTEMPTED] > at_start[0] or wal_index[SALT] != at_start[1])
                and (kind is None or issubclass(kind, Exception))
            ):
                require_reader_lock(store.path)
            if kind is None:
                reader = store._reader
                assert reader is not None
                reader.execute("COMMIT")
                self._mutex.release(hold)
            else:
                self._mutex.undo_and_release(hold)
            self.__class__ = _ExitedScope  # type: ignore[assignment]
        except apsw.Error as failure:
            undo_and_release(self._mutex, hold)
            raise self._failed(failure) from failure
        except BaseException:
            undo_and_release(self._mutex, hold)
            raise
        if isinstance(error, (apsw.Error, OSError)):
            self._reraise(error)
