"""The database files that this process has open through apsw, and those that its parent had open when it forked.

Called by everything that opens a database file: the store, migrations, backup, restore and the doctor. Opens no
connection itself.

apsw and the standard library's sqlite3 are two copies of SQLite, and POSIX drops all of a process's locks on a file
when any descriptor of it is closed: one copy's close would release the other's locks. So nothing may open a database
with sqlite3 (migrations, ad-hoc inspection) while a connection of apsw in this process has it open.
Source: https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_

SQLite keeps a table in memory of what its process has locked in each file, by device and inode. ``fork`` copies that
table but not the locks. A child that opens the same file is told by the table that it holds locks which it does not
hold: its last commits are lost, or the file is corrupted, when the parent closes. So a child may not open what its
parent, or its parent's parent, had open when it forked, under any name. Nor anything at all if another thread was
inside SQLite at that moment: the library's own mutexes stay locked forever in the child.
Source: https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_
"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import ForkedRegistry, Unusable
from ...system.identifiers import FileId, file_id
from .lock_guard import LockGuard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OpenFile:
    """One use of a database file. It counts until :func:`unregister`, or until it is no longer referenced.

    Attributes:
        identity: the file's device and inode.
    """

    __slots__ = ("__weakref__", "identity")

    def __init__(self, identity: FileId) -> None:
        self.identity = identity


_lock = threading.RLock()
_open: dict[int, weakref.ref[OpenFile]] = {}
_guards: dict[FileId, LockGuard] = {}
_inherited: set[FileId] = set()
_forked_inside_sqlite = False


def _identity(path: Path) -> FileId:
    return file_id(os.stat(path))


def _is_open(identity: FileId) -> bool:
    return any(file.identity == identity for file in list_open())


def refuse_inherited(path: Path) -> None:
    """Refuse a file that this process may not open with SQLite because of how it was forked.

    Raises:
        ForkedRegistry: an ancestor had it open when it forked, or another thread of it was inside SQLite.
    """
    if not _inherited and not _forked_inside_sqlite:
        return
    advice = (
        "start the process with spawn or exec instead (multiprocessing: get_context('spawn') or 'forkserver'; "
        "gunicorn: no preload; Celery: open it in worker_process_init), or close every Registry on the file before "
        "the fork"
    )
    if _forked_inside_sqlite:
        raise ForkedRegistry(
            f"{path} is not opened: this process {os.getpid()} was forked while another thread of its parent was "
            "inside SQLite, whose mutexes it has inherited locked",
            advice=advice,
        )
    if path.exists() and _identity(path) in _inherited:
        raise ForkedRegistry(
            f"{path} is not opened: a parent of this process {os.getpid()} had it open when it forked. The child has "
            "SQLite's record of the locks without the locks, so jobs would be lost",
            advice=advice,
        )


def register(path: Path) -> OpenFile:
    """Record that a connection is about to open ``path``; return what :func:`unregister` takes.

    Raises:
        ForkedRegistry: this process must not open it, see :func:`refuse_inherited`.
    """
    file = OpenFile(_identity(path))
    with _lock:
        refuse_inherited(path)
        _open[id(file)] = weakref.ref(file)
    return file


def unregister(file: OpenFile) -> None:
    """Record that a connection was closed. Idempotent."""
    with _lock:
        _open.pop(id(file), None)
        _close_guards()


def _close_guards() -> None:
    """Close guards of files without an open connection: closing a descriptor drops the process's locks on its file."""
    for identity in [identity for identity in _guards if not _is_open(identity)]:
        _guards.pop(identity).close()


def guard_locks(file: OpenFile, path: Path) -> LockGuard:
    """Guard this process's locks on a WAL database to which it has just opened a connection."""
    with _lock:
        guard = _guards.setdefault(file.identity, LockGuard())
        guard.acquire(path)
        return guard


def release_locks(file: OpenFile) -> None:
    """Release the guarding locks before this process's last connection closes, which needs the EXCLUSIVE lock."""
    with _lock:
        others = any(other is not file and other.identity == file.identity for other in list_open())
        if not others and file.identity in _guards:
            _guards[file.identity].release()


@contextmanager
def raw_read(path: Path) -> Iterator[bool]:
    """Keep connections from being opened while a file is read directly.

    Yields:
        False when this process has the file open: then it must not be read, since closing it would drop the locks.

    Raises:
        ForkedRegistry: this process must not open it, see :func:`refuse_inherited`.
    """
    with _lock:
        refuse_inherited(path)
        yield not _is_open(_identity(path))


@contextmanager
def exclusive_open(path: Path) -> Iterator[None]:
    """Keep connections from being opened while the standard library's sqlite3 works on ``path``.

    Raises:
        Unusable: a connection of this process has it open.
        ForkedRegistry: this process must not open it, see :func:`refuse_inherited`.
    """
    with _lock:
        refuse_inherited(path)
        if path.exists() and _is_in_use(_identity(path)):
            raise Unusable(
                f"{path} is open in this process (two SQLite libraries on one file in one process would release each "
                "other's locks)",
                advice="close the Registry first",
            )
        yield


def _is_in_use(identity: FileId) -> bool:
    """Return whether a connection is open. One whose creation was interrupted may only be kept by a reference cycle."""
    if not _is_open(identity):
        return False
    gc.collect()
    return _is_open(identity)


# -- fork


def try_lock(timeout_sec: float) -> bool:
    """Keep files from being opened while the process forks, until :func:`unlock`; return whether that succeeded."""
    return _lock.acquire(timeout=timeout_sec)


def unlock() -> None:
    """Allow files to be opened again after :func:`try_lock`."""
    _lock.release()


def list_open() -> list[OpenFile]:
    """Return the entries of all files that are open."""
    return [file for reference in list(_open.values()) if (file := reference()) is not None]


def after_fork_in_child(quiesced: bool) -> None:
    """Record which files the parent had open, and whether its threads were quiesced (none was inside SQLite)."""
    global _lock, _forked_inside_sqlite
    _lock = threading.RLock()  # another thread of the parent may have held it
    _inherited.update(file.identity for file in list_open())
    _open.clear()
    for guard in _guards.values():
        guard.close()  # the locks would outlive the parent with the child's descriptors
    _guards.clear()
    _forked_inside_sqlite = _forked_inside_sqlite or not quiesced
