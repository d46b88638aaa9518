"""What happens to open databases when the process forks.

Before the fork every store is brought to rest for a moment, so that no thread is inside SQLite: the child would find
the library's own locks taken for ever. Where that takes too long the fork goes on, and the child may open no database
at all. After it, the child lets go of the gate and remembers which files it must not open (see ``opened``). Its copies
of the connections are never closed: that would be done to the parent's locks and files.

Starting a program (``subprocess``, spawn, forkserver) does not come here.
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
    from .mutex import Mutex
    from .store import SqliteStore

_QUIESCE_SEC = 0.5
"""So long a fork waits for verbs of other threads."""

_stores: list[weakref.ref[SqliteStore]] = []
_acquired: list[tuple[Mutex, MutexHold]] = []
_locked = _quiesced = False
_never_closed: list[Any] = []


def register(store: SqliteStore) -> None:
    """Notes an open store, until it is destroyed."""
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
            return  # another thread is opening a database, or works on one in a way of its own
        if _locked:
            open_files.unlock()
            _locked = False
        time.sleep(0.001)


def _quiesce(mutex: Mutex, deadline: float) -> bool:
    """Whether no other thread is in a verb of this mutex, nor can begin one."""
    hold = MutexHold(None)
    _acquired.append((mutex, hold))
    try:
        return mutex.acquire(hold, max(0.0, deadline - time.monotonic()))
    except Busy:
        return True  # this thread itself: it is in Python code now


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
