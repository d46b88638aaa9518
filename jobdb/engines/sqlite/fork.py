"""The hooks that run before and after a ``fork`` for the open databases of a process.

Called by Python on every ``fork``, and by the store, which registers itself. Acquires mutexes; never calls SQLite.

Prior art: SQLite forbids carrying a connection across a fork (https://sqlite.org/howtocorrupt.html, section 2.6), and
its table of locks, which the child inherits without the locks, makes even a fresh connection on the same file unsafe.

Before a fork all stores are quiesced briefly, so that no thread is inside SQLite: otherwise the library's own mutexes
would stay locked forever in the child. If that takes too long, the fork proceeds, and the child may open no database at
all. After the fork the child releases the gate and remembers which files it must not open (see `open_files`). Its
copies of the connections are never closed: closing would act on the parent's locks and files.

Alternatives that do not work: closing the parent's connections before every fork (a library such as
``multiprocessing`` may fork at any time), and refusing the fork (a hook cannot).

Starting a program (``subprocess``, spawn, forkserver) does not run these hooks.
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import Busy
from . import open_files
from .mutex import MutexHold

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    from .mutex import Mutex

    class ForkedStore(Protocol):
        """The interface of a store that these hooks use."""

        @property
        def open_file(self) -> open_files.OpenFile:
            """The store's entry in `open_files`."""
            ...

        @property
        def is_fully_closed(self) -> bool:
            """True if nothing of the store is open any more."""
            ...

        @property
        def mutexes(self) -> tuple[Mutex, Mutex]:
            """The mutexes that keep threads out of its connections."""
            ...

        def detach_after_fork(self) -> object:
            """Release the resources that the child shares with the parent; return the objects it must never destroy."""
            ...


_QUIESCE_SEC = 0.5
"""The time for which a fork waits for verbs of other threads."""


class Lifetime:
    """The lifetime of a store: the process that may use it, until it is closed.

    Attributes:
        pid: the process that opened the store.
        closed: it was closed, or is being closed.
    """

    __slots__ = ("_path", "closed", "pid")

    def __init__(self, path: Path) -> None:
        self._path = path
        self.pid = os.getpid()
        self.closed = False

    def require_usable(self) -> None:
        """Refuse work in a forked child or after the close, before any call into SQLite.

        Raises:
            ForkedRegistry: another process opened the store.
            InvalidInput: it is closed.
        """
        if os.getpid() == self.pid and not self.closed:
            return
        from ..liveness import require_alive

        require_alive(
            self._path,
            opener_pid=self.pid,
            closed=self.closed,
            advice="start the child with spawn or exec, or close the registry before the fork and open one in each "
            "process; a child cannot open the file again either",
        )


_stores: list[weakref.ref[ForkedStore]] = []
_acquired: list[tuple[Mutex, MutexHold]] = []
_locked = _quiesced = False
_never_closed: list[Any] = []


def register(store: ForkedStore) -> None:
    """Record an open store, until it is destroyed."""
    _stores.append(weakref.ref(store, _stores.remove))


def _before_fork() -> None:
    global _locked, _quiesced
    deadline = time.monotonic() + _QUIESCE_SEC
    _quiesced = False
    stores = [store for reference in list(_stores) if (store := reference()) is not None and not store.is_fully_closed]
    quiesced = all(_quiesce(mutex, deadline) for store in stores for mutex in store.mutexes)
    known = {id(store.open_file) for store in stores}
    while True:
        _locked = open_files.try_lock(max(0.0, deadline - time.monotonic()))
        if _locked and all(id(file) in known for file in open_files.list_open()):
            _quiesced = quiesced
            return
        if time.monotonic() > deadline:
            return  # another thread is opening a database, or uses one without a store
        if _locked:
            open_files.unlock()
            _locked = False
        time.sleep(0.001)


def _quiesce(mutex: Mutex, deadline: float) -> bool:
    """Acquire a mutex; return whether no other thread is, or can enter, a verb under it."""
    hold = MutexHold(None)
    _acquired.append((mutex, hold))
    try:
        return mutex.acquire(hold, max(0.0, deadline - time.monotonic()))
    except Busy:
        return True  # this thread holds it, and is in Python code now


def _after_fork_in_parent() -> None:
    global _locked
    if _locked:
        _locked = False
        open_files.unlock()
    while _acquired:
        mutex, hold = _acquired.pop()
        mutex.release(hold)


def _after_fork_in_child() -> None:
    global _locked
    _locked = False
    _acquired.clear()
    open_files.after_fork_in_child(_quiesced)
    for reference in _stores:
        store = reference()
        if store is not None and not store.is_fully_closed:
            with suppress(OSError):
                _never_closed.append(store.detach_after_fork())
    _stores.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
