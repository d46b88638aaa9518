"""A lock that can be taken back from a verb that an exception has cut off.

Ctrl-C, a SIGTERM handler that raises or a soft time limit arrives between two steps of Python code: also between
``lock.acquire()`` and the ``try`` that would release it, and at the first step of ``__exit__``. No arrangement of
``try`` and ``with`` closes that gap, since Python cannot put such an exception off. A lock that knows nothing of its
holder is then held for ever.

So this one records its holder, by one call into C: there is no moment at which it is held by nobody. Who wants it asks
whether the function that entered the ``with`` block is still running. If not, nobody will leave the block any more:
what it left behind is undone and the lock passes on.

Rejected: a plain ``Lock`` (unknown holder), an ``RLock`` (only its own thread can release it, and a signal handler that
calls a verb in the middle of another would get in).
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
"""A holder that is cut off wakes nobody: who waits asks again after this time whether there still is one."""
_HOLDER = "holder"
_WRAPPERS = ("__enter__", "enter_context")


class MutexHold:
    """One block's hold on a mutex, made before the mutex is asked for.

    Args:
        frame: the function whose ``with`` statement is being entered, or the ``__enter__`` of a block that it wraps
            around ours; None: it is not taken away by anybody.
    """

    __slots__ = ("frame", "thread")

    def __init__(self, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_name in _WRAPPERS:
            frame = frame.f_back
        self.frame = frame
        self.thread = get_ident()

    def is_abandoned(self) -> bool:
        """Whether the function that entered the block has ended without leaving it."""
        frame = self.frame
        if frame is None:
            return False
        if frame.f_code.co_flags & _SUSPENDABLE:
            return False  # perhaps suspended: Mutex.let_go is called when it is destroyed
        try:
            frame.clear()  # refused for a function that is running, in whichever thread
        except RuntimeError:
            return False
        return True


class Mutex:
    """A lock for one block at a time.

    Args:
        what: what it guards, for errors.
        undo: undoes what an abandoned block has left behind, judged by the real state: it may be called in any state,
            any number of times.
    """

    def __init__(self, what: str, undo: Callable[[], None]) -> None:
        self._what = what
        self._undo = undo
        self._holder: dict[str, MutexHold] = {}  # at most one, put there and taken away by one call into C
        self._released = threading.Lock()  # locked while there is nothing new for those who wait
        self._undoing = threading.RLock()

    def acquire(self, hold: MutexHold, timeout_sec: float | None) -> bool:
        """Make ``hold`` the holder; False when the time is over.

        Args:
            hold: the caller's.
            timeout_sec: how long to wait, in seconds; None: as long as it takes.

        Raises:
            Busy: this thread is the holder and would wait for itself.
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
                    f"{self._what}: this thread is inside a verb of this registry already. A signal handler must not "
                    "call the registry that it may have interrupted: set a flag there, or raise, and act afterwards",
                    waited_sec=0.0,
                )
            left = _RECHECK_SEC if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._released.acquire(timeout=min(left, _RECHECK_SEC))

    def locked(self) -> bool:
        """Whether there is a holder."""
        return bool(self._holder)

    def holds(self, hold: MutexHold) -> bool:
        """Whether ``hold`` is the holder."""
        return self._holder.get(_HOLDER) is hold

    def undo_and_release(self, hold: MutexHold) -> None:
        """Undo what the block has left and release the mutex, if ``hold`` is the holder. It can be called again."""
        with self._undoing:  # of several who find the same abandoned block one undoes it
            if self.holds(hold):
                self._undo()
                self.release(hold)

    def release(self, hold: MutexHold) -> None:
        """Release the mutex, if ``hold`` is the holder; the block has left nothing behind."""
        if self._holder.get(_HOLDER) is not hold:
            return
        self._holder.pop(_HOLDER, None)
        hold.frame = None
        if self._released.locked():
            with suppress(RuntimeError):  # another thread has just done it
                self._released.release()


class _ExitedBlock:
    """A block that was left: nothing runs when it is destroyed, for Python drops what is raised in ``__del__``."""

    __slots__ = ("_hold", "_mutex")

    def __init__(self, mutex: Mutex) -> None:
        self._hold: MutexHold | None = None
        self._mutex = mutex


class MutexBlock(_ExitedBlock):
    """The block of a verb that leaves nothing behind but what ``undo`` knows: ``with Held(mutex):``.

    Raises:
        Busy: this thread holds the mutex already.
    """

    __slots__ = ()

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
        self.__class__ = _ExitedBlock  # type: ignore[assignment]

    def __del__(self) -> None:
        hold: MutexHold | None = getattr(self, "_hold", None)  # none: cut off at the first step of __init__
        if hold is not None:
            undo_and_release(self._mutex, hold)


def undo_and_release(mutex: Mutex, hold: MutexHold) -> None:
    """Undo and release; once more where an exception cuts that off too."""
    try:
        mutex.undo_and_release(hold)
    except BaseException:
        mutex.undo_and_release(hold)
        raise
