"""The ``with`` block in which a transaction runs: whatever ends it, at whatever point, everything acquired is released.

Created by the store; the work is done by its write path or its read path. Each step from the first lock on is inside
the ``try`` that undoes everything, and undoing goes by the real state instead of recording how far the block came. A
block that is interrupted twice, or at the first step of ``__exit__``, is undone when it is destroyed, or by the next
one that waits for the mutex; see `mutex`.
"""

from __future__ import annotations

import sys
from os import getpid
from time import monotonic
from typing import TYPE_CHECKING

import apsw

from ...errors import InvalidInput, Refused, StorageFailed
from ...system.descriptor_shortage import SHORTAGE_ADVICE, is_shortage
from .error_translation import translate
from .mutex import Block, Mutex, MutexHold, undo_and_release, undo_if_abandoned

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Protocol

    from .fork import Lifetime
    from .transaction import SqliteTransaction

    class TransactionPath(Protocol):
        """The interface of the write path and the read path that a block uses.

        Attributes:
            path: the database file, for messages.
            mutex: held from `begin` until the block is exited.
            lifetime: tells whether the store may be used.
        """

        path: Path
        mutex: Mutex
        lifetime: Lifetime

        def begin(self, hold: MutexHold, started: float) -> SqliteTransaction:
            """Acquire everything and begin; the block undoes it all if this raises."""
            ...

        def commit(self) -> int:
            """Commit; return the commit's number, or 0 if `after_commit` has nothing to do."""
            ...

        def before_undo(self, kind: type[BaseException]) -> None:
            """Check the data that led to an exception of this class; called while the transaction is still open."""
            ...

        def after_commit(self, number: int) -> None:
            """Make a commit durable; called when the mutex has been released."""
            ...

        def after_refusal(self) -> None:
            """Make the commits on which a refusal is based durable; called when the mutex has been released."""
            ...


class TransactionScope(Block):
    """The block of one transaction.

    Args:
        path: the side of the store that it runs on.
    """

    __slots__ = ("_path", "_started")

    _started: float

    def __init__(self, path: TransactionPath) -> None:
        super().__init__(path.mutex)
        self._path = path

    __del__ = undo_if_abandoned

    def __enter__(self) -> SqliteTransaction:
        path = self._path
        lifetime = path.lifetime
        if lifetime.closed or getpid() != lifetime.pid:
            lifetime.require_usable()
        hold = self._hold = MutexHold(sys._getframe(1))
        self._started = started = monotonic()
        try:
            # Not "return path.begin(…)": an exception after a call whose result is returned is outside of the try.
            transaction = path.begin(hold, started)
            return transaction  # noqa: RET504
        except apsw.Error as failure:
            undo_and_release(self._mutex, hold)
            raise _translated(failure, path, started) from failure
        except BaseException:
            undo_and_release(self._mutex, hold)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # No call before the try: a frame of this method that is kept would keep the block from being destroyed.
        path, hold = self._path, self._hold
        assert hold is not None
        number = 0
        try:
            if kind is None:
                number = path.commit()
                self._mutex.release(hold)
            else:
                path.before_undo(kind)
                self._mutex.undo_and_release(hold)
            self.__class__ = _ExitedScope  # type: ignore[assignment]
        except apsw.Error as failure:
            undo_and_release(self._mutex, hold)
            raise _translated(failure, path, self._started) from failure
        except BaseException:
            undo_and_release(self._mutex, hold)
            raise
        if kind is None:
            if number:
                path.after_commit(number)
        elif isinstance(error, (Refused, InvalidInput)):
            path.after_refusal()
        elif isinstance(error, apsw.Error):
            raise _translated(error, path, self._started) from error
        elif isinstance(error, OSError) and is_shortage(error):
            raise StorageFailed(
                f"this process could open no file during a verb on {path.path}: {error.strerror}; nothing was "
                f"written. {SHORTAGE_ADVICE}"
            ) from error


class _ExitedScope(Block):
    """A block that was exited; see `Block`."""

    __slots__ = ("_path", "_started")


def _translated(failure: apsw.Error, path: TransactionPath, started: float) -> Exception:
    return translate(failure, path.path, monotonic() - started)
