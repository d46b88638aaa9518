"""The old registry's lock: one exclusive ``flock`` on ``.lock`` for every read-modify-write.

Called by the importer and the exporter. The wait is a blocking ``flock`` in a thread of its own: old writers queue in
the kernel, and whoever only looks in now and then (``LOCK_NB`` and sleep) never gets a turn between them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import Busy, Unusable
from ..kernel_locks import locks_on
from .layout import LOCK_NAME

WAITS_BEFORE_GIVING_UP_ON_REPLACED_LOCKS = 100
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY


class RegistryLock:
    """The lock as it is held, or the fact that there is none to hold.

    A folder without a lock file is not given one: an import leaves its source as it is. Old writers create the file
    before they write anything, so it is enough to see, at the end, that there still is none: `writer_appeared`.
    """

    def __init__(self, path: Path, fd: int | None) -> None:
        self.path = path
        self._fd = fd

    @property
    def held(self) -> bool:
        return self._fd is not None

    def writer_appeared(self) -> bool:
        """Whether an old writer may have been at work beside us since the lock was asked for."""
        return self._fd is None and os.path.lexists(self.path)


@contextmanager
def registry_lock(folder: Path, *, timeout_sec: float, create: bool) -> Iterator[RegistryLock]:
    """Holds the lock of a registry's folder.

    Args:
        folder: the folder of records.
        timeout_sec: how long to wait, in seconds.
        create: make the lock file where there is none (export), or do without (import).

    Raises:
        Busy: the wait reached its limit; says who holds the lock, where that can be known.
        Unusable: the lock file cannot be opened or locked.
    """
    path = folder / LOCK_NAME
    deadline = time.monotonic() + timeout_sec
    fd = _acquire(path, deadline, timeout_sec, create)
    try:
        yield RegistryLock(path, fd)
    finally:
        if fd is not None:
            os.close(fd)


def lock_holder(path: Path) -> str | None:
    """Return "python3 (pid 4711)" for another process that holds an flock on the file, else None."""
    others = (lock for lock in locks_on(path) if lock.kind == "FLOCK" and lock.pid > 0 and lock.pid != os.getpid())
    return next((lock.holder for lock in others), None)


def _acquire(path: Path, deadline: float, timeout_sec: float, create: bool) -> int | None:
    for _ in range(WAITS_BEFORE_GIVING_UP_ON_REPLACED_LOCKS):
        fd = _open(path, create)
        if fd is None:
            return None
        try:
            fd = _lock(fd, path, deadline, timeout_sec)
        except OSError as error:
            raise Unusable(
                f"{path} cannot be locked: {error.strerror}; without the lock the old scripts could write meanwhile. "
                "Stop them, copy the folder to a local disk and use the copy"
            ) from error
        if _same_file(fd, path):
            return fd
        os.close(fd)
    raise Busy(
        f"{path} is replaced again and again by another program, so it locks nothing; stop that program",
        waited_sec=timeout_sec,
    )


def _open(path: Path, create: bool) -> int | None:
    try:
        fd = os.open(path, (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY) | _FLAGS, 0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            leads = "leads nowhere" if not os.path.exists(path) else "is not followed: its lock would be another file's"
            raise Unusable(f"{path} is a link that {leads}; remove it") from None
        raise Unusable(
            f"{path} cannot be opened: {error.strerror}; run this as the user who owns the registry"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Unusable(f"{path} is not a regular file, so the old scripts' lock cannot be taken on it; remove it")
    return fd


def _lock(fd: int, path: Path, deadline: float, timeout_sec: float) -> int:
    """The locked descriptor: ``fd``, or another one of the same file where locking needs it open for writing (NFS)."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except BlockingIOError:
        pass
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EBADF:
            raise
        fd = os.open(path, os.O_RDWR | _FLAGS)
    waiter = _Waiter(fd)
    if not waiter.wait(deadline - time.monotonic()):
        holder = lock_holder(path)
        raise Busy(
            f"the old registry's lock {path} was held for {timeout_sec:.1f} s"
            + (f" by {holder}" if holder else "")
            + "; nothing was changed. Try again, or allow a longer wait",
            waited_sec=timeout_sec,
            holder=holder,
        )
    return fd


def _same_file(fd: int, path: Path) -> bool:
    """Whether the name still leads to the file that was locked: a lock on a replaced file excludes nobody."""
    try:
        named = os.lstat(path)
    except OSError:
        return False
    locked = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino)


class _Waiter:
    """A thread that waits in ``flock``. Given up on, it closes the descriptor as soon as it gets the lock."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._mutex = threading.Lock()
        self._done = threading.Event()
        self._abandoned = False
        self._error: OSError | None = None
        threading.Thread(target=self._run, name="jobdb-legacy-lock", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """True once the lock is held; False when the time is over, and the descriptor is the thread's to close.

        Raises:
            OSError: the file cannot be locked.
        """
        try:
            self._done.wait(max(0.0, seconds))
        finally:
            with self._mutex:
                if not self._done.is_set():
                    self._abandoned = True
        if self._error is not None:
            os.close(self._fd)
            raise self._error
        return not self._abandoned

    def _run(self) -> None:
        error = None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as failure:
            error = failure
        with self._mutex:
            self._error = error
            if self._abandoned:
                os.close(self._fd)
            else:
                self._done.set()
