"""Which database files this process has open through apsw.

apsw and the standard library's sqlite3 are two copies of SQLite, and POSIX drops all of a process's locks on a file
when any descriptor for it is closed: one copy's close would release the other's locks. So nothing may open a
database with sqlite3 (migrations, ad-hoc inspection) while a runtime connection of this process has it open.
Source: https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import Unusable
from .lock_guard import LockGuard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_lock = threading.RLock()
_open: Counter[tuple[int, int]] = Counter()
_guards: dict[tuple[int, int], LockGuard] = {}


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def add(path: Path) -> tuple[int, int]:
    """Notes that a runtime connection is about to open ``path``; returns what :func:`remove` takes."""
    with _lock:
        identity = _identity(path)
        _open[identity] += 1
        return identity


def remove(identity: tuple[int, int]) -> None:
    """Notes that a runtime connection was closed."""
    with _lock:
        _open[identity] -= 1
        if _open[identity] <= 0:
            del _open[identity]
            guard = _guards.pop(identity, None)
            if guard is not None:
                guard.close()


def hold_locks(identity: tuple[int, int], path: Path) -> None:
    """Guards this process's locks on a WAL database to which it has just opened a connection."""
    with _lock:
        _guards.setdefault(identity, LockGuard()).hold(path)


def let_go_of_locks(identity: tuple[int, int]) -> None:
    """Lets the last connection of this process close as SQLite means it; called just before that."""
    with _lock:
        if _open[identity] == 1 and identity in _guards:
            _guards[identity].let_go()


def _after_fork_in_child() -> None:
    """The child has its parent's descriptors, and the locks would outlive the parent with them."""
    for guard in _guards.values():
        guard.close()
    _guards.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


@contextmanager
def standard_library_may_look(path: Path) -> Iterator[bool]:
    """Held while the file is read by hand; yields False, and it must not be read, when this process has it open."""
    with _lock:
        yield _open[_identity(path)] == 0


@contextmanager
def standard_library_may_open(path: Path) -> Iterator[None]:
    """Held while the standard library's sqlite3 works on ``path``; no runtime connection can be opened meanwhile.

    Raises:
        Unusable: a runtime connection of this process has it open.
    """
    with _lock:
        if path.exists() and _open[_identity(path)] > 0:
            raise Unusable(
                f"{path} is open in this process; close the Registry first (two SQLite libraries on one file in one "
                "process would release each other's locks)"
            )
        yield
