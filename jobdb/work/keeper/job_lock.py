"""The lock of a job on this host: whoever holds it may have processes of the job alive.

Used by the keeper before it starts an attempt; imports only the standard library. The lock is the kernel's (flock), so
it ends with the last process that has the file open: the keeper, and the server, to which it gives a copy, so that the
lock outlives a killed keeper until its orphans are dead. The file tells who holds it, for the keeper of the next
attempt, which asks the holder to stop.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from contextlib import suppress

from .process_tree import Process, read_file, read_process, send_signal

_MAX_BYTES = 8192


class Holder:
    """The keeper that holds a lock, or was killed holding it, as the lock's file describes it.

    Attributes:
        pid: its process id.
        started: its start, in clock ticks since the boot.
        place: the boot and the process namespace in which its id means something.
        attempt: the number of its attempt.
        group: the folder of its attempt's control group; empty if it has none.
    """

    __slots__ = ("attempt", "group", "pid", "place", "started")

    def __init__(self, pid: int, started: int, place: bytes, attempt: int, group: bytes) -> None:
        self.pid, self.started, self.place = pid, started, place
        self.attempt, self.group = attempt, group

    def find(self) -> Process | None:
        """Return the keeper's process, unless it is gone or belongs to another boot or process namespace."""
        if self.place != own_place() or self.pid == os.getpid():
            return None
        process = read_process(self.pid)
        return process if process is not None and process.started == self.started else None

    def signal(self, number: int) -> bool:
        """Send the keeper a signal; return whether there was one to receive it."""
        process = self.find()
        return process is not None and send_signal(process, number)

    def ask_to_stop(self) -> bool:
        """Tell the keeper to kill its attempt and end, also if it was stopped by a signal."""
        return self.signal(signal.SIGTERM) and self.signal(signal.SIGCONT)


class JobLock:
    """The lock of a job.

    Args:
        path: its file, in a folder of this user's own. The folder is made if missing.
    """

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> bool:
        """Try to take the lock, and return whether it is held now.

        Raises:
            OSError: the file cannot be opened.
        """
        while True:
            fd = self._open()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(fd)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    return False
                raise
            # Its last holder may have removed the file while this process opened it.
            if self._is_current(fd):
                self._fd = fd
                return True
            os.close(fd)

    def fileno(self) -> int:
        """Return the descriptor that holds the lock."""
        return self._fd

    def is_used(self) -> bool:
        """Return whether the file says something, as it does if its last holder was killed; while it is held."""
        return os.fstat(self._fd).st_size > 0

    def read_holder(self) -> Holder | None:
        """Return who holds the lock, or was killed holding it; None if the file does not tell."""
        fields = (read_file(os.fsdecode(self._path), _MAX_BYTES) or b"").split(b"\n")
        if len(fields) != 6 or not (fields[0].isdigit() and fields[1].isdigit() and fields[3].isdigit()):
            return None
        return Holder(int(fields[0]), int(fields[1]), fields[2], int(fields[3]), fields[4])

    def write_holder(self, started: int, attempt: int, group: bytes) -> None:
        """Write into the file that this process holds the lock.

        Args:
            started: its start, in clock ticks since the boot.
            attempt: the number of the attempt.
            group: the folder of the attempt's control group; empty if it has none.
        """
        content = b"%d\n%d\n%b\n%d\n%b\n" % (os.getpid(), started, own_place(), attempt, group)
        # Without it, as on a full disk, the next attempt waits for this one instead of asking it to stop.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, content, 0)

    def release(self) -> None:
        """Remove the file and give the lock up, for all processes that have it open."""
        if self._fd < 0:
            return
        with suppress(OSError):
            if self._is_current(self._fd):
                os.unlink(self._path)
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            return os.open(self._path, flags, 0o600)

    def _is_current(self, fd: int) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        here = os.fstat(fd)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def own_place() -> bytes:
    """Return in which boot and process namespace a process id of this process means something."""
    if not _own_place:
        boot = (read_file("/proc/sys/kernel/random/boot_id") or b"").strip()
        try:
            namespace = os.readlink(b"/proc/self/ns/pid")
        except OSError:
            namespace = b""
        _own_place.append(boot + b" " + namespace)
    return _own_place[0]


_own_place: list[bytes] = []
"""Looked up once: the server does it for all of its keepers."""
