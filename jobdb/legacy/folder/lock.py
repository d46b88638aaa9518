"""The old registry's lock: one exclusive ``flock`` on ``.lock`` for every read-modify-write.

Called by the importer and the exporter. The wait is a blocking ``flock`` in a separate thread: old writers queue in the
kernel, and a process that only polls (``LOCK_NB`` and sleep) never gets a turn between them.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import stat
import time
import weakref
from pathlib import Path

from ...errors import Busy, Unusable
from ...filesystem.kernel_locks import locks_on
from ...system.owned_fd import OwnedFd
from .layout import LOCK_NAME

DEFAULT_LOCK_TIMEOUT_SEC = 30.0
MAX_REPLACED_LOCKS = 100
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY


class RegistryLock(OwnedFd):
    """The lock while it is held, or the absence of a lock file; the end of ``with`` releases it.

    It is a file object, so that C code alone releases the lock: at the end of the block, or when an exception has
    destroyed the object. It is never held longer than that, whenever a Ctrl-C arrives.

    In a folder without a lock file none is created, because an import does not change its source. Old writers create
    the file before they write anything, so it is enough to check, at the end, that there is still none:
    `writer_appeared`.

    Args:
        path: the lock file.
        fd: a descriptor of it, or of any other file if there is none.
        held: True if there is a lock file, which is locked.
    """

    def __init__(self, path: Path, fd: int, *, held: bool) -> None:
        super().__init__(fd)
        self.path = path
        self.held = held
        _files.add(self)

    def writer_appeared(self) -> bool:
        """Return whether an old writer may have written since the lock was requested."""
        return not self.held and os.path.lexists(self.path)


_files: weakref.WeakSet[OwnedFd] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close the lock files in a forked child: a lock belongs to the open file, and the child would keep it held."""
    for file in _files:
        file.close()


os.register_at_fork(after_in_child=_close_in_child)


def registry_lock(folder: Path, *, timeout_sec: float, create: bool) -> RegistryLock:
    """Acquire the lock of a registry's folder, to be held in a ``with`` block.

    Args:
        folder: the folder of records.
        timeout_sec: how long to wait, in seconds.
        create: True to create the lock file if there is none (export), False to do without (import).

    Raises:
        Busy: the wait reached its limit; the message names the holder of the lock, if known.
        Unusable: the lock file cannot be opened or locked.
    """
    path = folder / LOCK_NAME
    deadline = time.monotonic() + timeout_sec
    for _ in range(MAX_REPLACED_LOCKS):
        lock = _open(path, create)
        if lock is None:
            return RegistryLock(path, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), held=False)
        try:
            lock = _lock(lock, deadline, timeout_sec)
            if _same_file(lock.fileno(), path):
                return lock
        except OSError as error:
            lock.close()
            raise Unusable(
                f"{path} cannot be locked: {error.strerror}; without the lock the old scripts could write meanwhile",
                advice="stop them, copy the folder to a local disk and use the copy",
            ) from error
        except BaseException:
            lock.close()
            raise
        lock.close()
    raise Busy(
        f"{path} is replaced repeatedly by another program, so it locks nothing",
        waited_sec=timeout_sec,
        advice="stop that program",
    )


def lock_holder(path: Path) -> str | None:
    """Return "python3 (pid 4711)" for another process that holds an flock on the file, else None."""
    others = (lock for lock in locks_on(path) if lock.kind == "FLOCK" and lock.pid > 0 and lock.pid != os.getpid())
    return next((lock.holder for lock in others), None)


def _open(path: Path, create: bool) -> RegistryLock | None:
    try:
        fd = os.open(path, (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY) | _FLAGS, 0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            leads = "is dangling" if not os.path.exists(path) else "is not followed: its lock would be another file's"
            raise Unusable(f"{path} is a link that {leads}", advice="remove it") from None
        raise Unusable(
            f"{path} cannot be opened: {error.strerror}", advice="run this as the user who owns the registry"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Unusable(
            f"{path} is not a regular file, so the old scripts' lock cannot be acquired on it", advice="remove it"
        )
    return RegistryLock(path, fd, held=True)


def _lock(lock: RegistryLock, deadline: float, timeout_sec: float) -> RegistryLock:
    """Lock it, or another descriptor of the same file if locking needs it open for writing (NFS)."""
    try:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        lock.close()
        lock = RegistryLock(lock.path, os.open(lock.path, os.O_RDWR | _FLAGS), held=True)
    try:
        locked = _wait_for_lock(lock, deadline - time.monotonic())
    except BaseException:
        lock.close()
        raise
    if not locked:
        lock.close()
        holder = lock_holder(lock.path)
        raise Busy(
            f"the old registry's lock {lock.path} was held for {timeout_sec:.1f} s"
            + (f" by {holder}" if holder else "")
            + "; nothing was changed",
            waited_sec=timeout_sec,
            holder=holder,
            advice="try again, or allow a longer wait",
            command="try again, or allow a longer wait with --lock-timeout",
        )
    return lock


def _wait_for_lock(lock: RegistryLock, seconds: float) -> bool:
    """Wait in a separate thread, through a separate descriptor for the same open file.

    The lock belongs to the open file. So it is kept when the thread has closed its descriptor, unless the waiting
    caller has given up and closed its own.

    Raises:
        OSError: the file cannot be locked.
    """
    waiting = OwnedFd(os.dup(lock.fileno()))
    _files.add(waiting)
    failures: list[OSError] = []
    done = _thread.allocate_lock()
    done.acquire()

    def wait() -> None:
        try:
            fcntl.flock(waiting.fileno(), fcntl.LOCK_EX)
        except OSError as failure:
            failures.append(failure)
        finally:
            waiting.close()
            done.release()

    # Not threading.Thread, whose start() waits in Python code and, if interrupted there, raises a RuntimeError.
    _thread.start_new_thread(wait, ())
    locked = done.acquire(timeout=max(0.0, seconds))
    if failures:
        raise failures[0]
    return locked


def _same_file(fd: int, path: Path) -> bool:
    """Return whether the name still refers to the locked file: a lock on a replaced file excludes nobody."""
    try:
        named = os.lstat(path)
    except OSError:
        return False
    locked = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino)
