"""The watcher of an asyncio registry: one thread that waits for changes of the database, for all tasks that wait.

Created by ``asynchronous.py``; calls the store. The thread exists only while somebody waits. It knows nothing of what
is waited for: it wakes every task that has looked at an older version of the database, and the task looks again.

Prior art: PostgreSQL's listener in ``engines/postgresql/listener.py``, one thread for all waiting threads. Rejected: a
thread per wait, because 200 tasks would need 200 threads, and a cancelled task would leave its thread waiting; polling
from the event loop, because a look at the database may block.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from ..engines.liveness import closed_error
from ..system.interrupt_safe_flag import Flag

if TYPE_CHECKING:
    from ..engines.store import Store
    from .waiting import WaitForChange

_LONGEST_WAIT_SEC = 60.0
_LINGER_SEC = 0.05
"""The time for which the thread stays when nobody waits: a task that has been woken mostly waits again at once."""
_PAUSE_PER_TASK_SEC, _LONGEST_PAUSE_SEC = 0.0002, 0.25
"""The time for which further changes go unnoticed, per task that was woken. A look costs about a fifth of that, so that
hundreds of tasks which wait beside hundreds of commits a second do not occupy a processor with looking."""


class _Waiter:
    """A task that waits, in its event loop."""

    __slots__ = ("_loop", "_woken", "seen")

    def __init__(self, seen: int) -> None:
        self.seen = seen
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] = self._loop.create_future()

    async def wait(self, timeout_sec: float) -> None:
        expiry = self._loop.call_later(timeout_sec, self._end, None)
        try:
            await self._woken
        finally:
            expiry.cancel()

    def wake(self, error: Exception | None = None) -> None:
        """End the wait, from any thread."""
        with suppress(RuntimeError):  # its event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: Exception | None) -> None:
        if self._woken.done():
            return
        if error is None:
            self._woken.set_result(None)
        else:
            self._woken.set_exception(error)


class ChangeWatcher:
    """Waits for changes of a database on behalf of any number of tasks, in any event loop.

    Args:
        store: the database.
        place: the database, as messages name it.
    """

    def __init__(self, store: Store, place: object) -> None:
        self._store = store
        self._place = place
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._wake = Flag()
        self._waiters: set[_Waiter] = set()
        self._thread: threading.Thread | None = None
        self._version = 0  # the one after which the thread waits for another
        self._closed = Flag()
        _watchers.add(self)

    async def wait(self, change: WaitForChange) -> None:
        """Wait until the database has changed, or until the time is over; it may return early.

        Raises:
            InvalidInput: the registry is closed.
            StorageFailed, DatabaseReplaced, Unavailable: the database cannot be watched.
        """
        waiter = _Waiter(change.seen)
        self._add(waiter)
        try:
            await waiter.wait(change.timeout_sec)
        finally:
            self._remove(waiter)

    def close(self) -> None:
        """End all waits with an error, and the thread. Blocks until the thread has ended."""
        with self._lock:
            self._closed.set()
            waiters, self._waiters = self._waiters, set()
            thread = self._thread
            self._wake.set()
        for waiter in waiters:
            waiter.wake(closed_error(self._place))
        if thread is not None:
            thread.join()

    def close_at_exit(self) -> None:
        """End the thread before the interpreter does, which would stop it inside of the database."""
        if os.getpid() == self._pid:
            self.close()

    def _add(self, waiter: _Waiter) -> None:
        with self._lock:
            if self._closed.is_set():
                raise closed_error(self._place)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobdb-async-watcher", daemon=True)
                self._thread.start()
            if not self._waiters or waiter.seen != self._version:
                self._wake.set()
            self._waiters.add(waiter)

    def _remove(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.discard(waiter)
            if not self._waiters:
                self._wake.set()

    # -- in the thread

    def _run(self) -> None:
        check_again = False
        try:
            version = self._store.data_version()
            while self._wake_waiters(version, everybody=check_again):
                seen, version = version, self._store.wait_for_change(version, _LONGEST_WAIT_SEC, wake=self._wake)
                # It returned on its own: the store does not know of a change, but asks to look again.
                check_again = version == seen and not self._wake.is_set()
        except Exception as error:
            self._fail(error)

    def _wake_waiters(self, version: int, *, everybody: bool) -> bool:
        """Wake those who have looked at another version, or everybody; return False once nobody waits."""
        with self._lock:
            self._wake.clear()
            self._version = version
            woken = {waiter for waiter in self._waiters if everybody or waiter.seen != version}
            self._waiters -= woken
        for waiter in woken:
            waiter.wake()
        self._closed.wait(min(len(woken) * _PAUSE_PER_TASK_SEC, _LONGEST_PAUSE_SEC))
        if not self._waiters and not self._closed.is_set():
            self._wake.wait(_LINGER_SEC)
        with self._lock:
            if self._waiters:
                return True
            self._thread = None
            return False

    def _fail(self, error: Exception) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, set()
            self._thread = None
        for waiter in waiters:
            waiter.wake(error)


_watchers: weakref.WeakSet[ChangeWatcher] = weakref.WeakSet()


def _close_all() -> None:
    for watcher in list(_watchers):
        watcher.close_at_exit()


atexit.register(_close_all)
