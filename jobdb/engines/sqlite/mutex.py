"""A mutex that can be recovered from a ``with`` block that an exception has interrupted.

Used by the store, its two paths and its transactions, and by the fork hooks. Knows nothing of SQLite.

Prior art: POSIX robust mutexes (``PTHREAD_MUTEX_ROBUST``), which hand over the lock of an owner that has died; the next
owner must make the protected state consistent. Here the owner is not a thread but one ``with`` block.

The problem: Ctrl-C, a SIGTERM handler that raises, or a soft time limit can arrive between any two bytecodes of Python,
even between ``lock.acquire()`` and the ``try`` that would release it, and at the first bytecode of ``__exit__``. No
arrangement of ``try`` and ``with`` closes that gap, since Python cannot defer such an exception. A lock that does not
know its owner then stays locked forever.

So this mutex records its owner by a single call into C: there is no moment at which it is locked without an owner. A
waiter checks whether the function that entered the ``with`` block is still running. If it is not, nobody will ever exit
the block: the waiter undoes what the block left behind, and takes the mutex.

Rejected: a plain ``Lock`` (its owner is unknown); an ``RLock`` (only its own thread can release it, and it would admit
a signal handler that calls a verb in the middle of another).
Source: https://docs.python.org/3/library/signal.html#handlers-and-exceptions
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING

from ...errors import Busy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_RECHECK_SEC = 0.02
"""A holder that is interrupted wakes nobody, so waiters check at this interval whether there still is one."""
_HOLDER = "holder"
_WRAPPERS = ("__enter__", "enter_context")


class MutexHold:
    """One block's hold on a mutex, created before the mutex is acquired.

    Args:
        frame: the frame whose ``with`` statement is being entered, or that of an ``__enter__`` that wraps ours; None:
            the hold never counts as abandoned.
    """

    __slots__ = ("frame", "thread")

    def __init__(self, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_name in _WRAPPERS:
            frame = frame.f_back
        self.frame = frame
        self.thread = get_ident()

    def is_abandoned(self) -> bool:
        """Return whether the function that entered the block has ended without exiting it."""
        frame = self.frame
        if frame is None:
            return False
        if frame.f_code.co_flags & _SUSPENDABLE:
            return False  # perhaps suspended: then the block is undone when it is destroyed
        try:
            frame.clear()  # raises for a frame that is executing, in whichever thread
        except RuntimeError:
            return False
        return True


class Mutex:
    """A lock for one block at a time.

    Args:
        what: the protected object, for messages.
        undo: undoes the effects of an abandoned block. It goes by the real state, so it may be called in any state and
            any number of times.
    """

    def __init__(self, what: str, undo: Callable[[], None]) -> None:
        self._what = what
        self._undo = undo
        self._holder: dict[str, MutexHold] = {}  # at most one entry, set and removed by one call into C
        self._released = threading.Lock()  # locked until the mutex is released
        self._undoing = threading.RLock()

    def acquire(self, hold: MutexHold, timeout_sec: float | None) -> bool:
        """Make ``hold`` the holder; return False after ``timeout_sec``.

        Args:
            hold: the caller's hold.
            timeout_sec: how long to wait, in seconds; None: without limit.

        Raises:
            Busy: this thread is the holder; it would wait for itself.
        """
        return self._holder.setdefault(_HOLDER, hold) is hold or self._wait(hold, timeout_sec)

    def _wait(self, hold: MutexHold, timeout_sec: float | None) -> bool:
        deadline = None if timeout_sec is None else time.monotonic() + timeout_sec
        while True:
            holder = self._holder.setdefault(_HOLDER, hold)
            if holder is hold:
                return True
            if holder.is_abandoned():
                self.undo_and_release(holder)
                continue
            if holder.thread == hold.thread:
                raise Busy(
                    f"{self._what}: this thread is already inside a verb of this registry. A signal handler must not "
                    "call the registry that it may have interrupted: set a flag in it, or raise, and act afterwards",
                    waited_sec=0.0,
                )
            left = _RECHECK_SEC if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._released.acquire(timeout=min(left, _RECHECK_SEC))

    def locked(self) -> bool:
        """Return whether there is a holder."""
        return bool(self._holder)

    def holds(self, hold: MutexHold) -> bool:
        """Return whether ``hold`` is the holder."""
        return self._holder.get(_HOLDER) is hold

    def undo_and_release(self, hold: MutexHold) -> None:
        """Undo what the block has left behind and release the mutex, if ``hold`` is the holder. Idempotent."""
        with self._undoing:  # several threads may find the same abandoned block: one undoes it
            if self.holds(hold):
                self._undo()
                self.release(hold)

    def release(self, hold: MutexHold) -> None:
        """Release the mutex, if ``hold`` is the holder. The block has left nothing to undo."""
        if self._holder.get(_HOLDER) is not hold:
            return
        self._holder.pop(_HOLDER, None)
        hold.frame = None
        if self._released.locked():
            with suppress(RuntimeError):  # another thread has just done it
                self._released.release()


class Block:
    """A ``with`` block under a mutex. It is in one of two states, which are classes:

    open: a class whose ``__del__`` is `undo_if_abandoned`: when the block is destroyed without having been exited, as a
        suspended generator can be, it is undone.
    exited: a class without ``__del__``, to which ``__exit__`` assigns ``self.__class__``. Python discards what is
        raised in ``__del__``: a Ctrl-C that arrived in one would be lost, so an exited block must not run any.

    Args:
        mutex: what the block acquires.
    """

    __slots__ = ("_hold", "_mutex")

    def __init__(self, mutex: Mutex) -> None:
        self._hold: MutexHold | None = None
        self._mutex = mutex


def undo_if_abandoned(block: Block) -> None:
    """Undo a block that is destroyed without having been exited: the ``__del__`` of open blocks."""
    hold: MutexHold | None = getattr(block, "_hold", None)  # unset if __init__ was interrupted at its first step
    if hold is not None:
        undo_and_release(block._mutex, hold)


class _ExitedMutexBlock(Block):
    """A block that was exited."""

    __slots__ = ()


class MutexBlock(Block):
    """A block whose only traces are those that the mutex's ``undo`` removes: ``with MutexBlock(mutex):``.

    Raises:
        Busy: this thread holds the mutex already.
    """

    __slots__ = ()

    __del__ = undo_if_abandoned

    def __enter__(self) -> None:
        hold = self._hold = MutexHold(sys._getframe(1))
        try:
            self._mutex.acquire(hold, None)
        except BaseException:
            undo_and_release(self._mutex, hold)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hold is not None:
            undo_and_release(self._mutex, self._hold)
        self.__class__ = _ExitedMutexBlock  # type: ignore[assignment]


def undo_and_release(mutex: Mutex, hold: MutexHold) -> None:
    """Undo and release; do so again if an exception interrupts the first attempt."""
    try:
        mutex.undo_and_release(hold)
    except BaseException:
        mutex.undo_and_release(hold)
        raise
