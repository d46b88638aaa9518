"""Detecting that the files of an open database were removed, renamed or replaced.

Called by the read path and the write path in each transaction; created by the store. Takes no lock and repairs nothing.

A name can be removed, renamed or given to another file while a connection continues to use the file it opened:
``rm -r``, ``git clean``, ``mv``, a folder replaced by another. Commits from then on are in no database that anybody can
find, and two workers can claim the same job. So the names of the database, its ``-wal`` and its ``-shm`` must still
lead to the files (device and inode) that this process has open: for a read at some time after it was requested; for a
write after its commit, before it is answered. While the files are open, their inode numbers are not reused.

Only ``lstat`` is used: opening and closing a file directly would drop this process's own locks on it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from os import F_OK, access, fstat, lstat, readlink
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from ...errors import DatabaseReplaced, StorageFailed, UnsafeFileSystem, Unusable
from ...filesystem.unsafe_files import hard_link_error
from ...system.identifiers import FileId
from ...system.stdio_descriptors import move_above_stdio

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

_WRITE_VALID_SEC = 0.002
"""The time for which a new write relies on the last check; it checks again after its commit."""
_READ_VALID_SEC = 0.001
"""That time for a read, which does not check again, since a check takes as long as the cheapest read."""
_TIMESTAMP_GRANULARITY_NS = 50_000_000
"""Longer than a tick of the kernel's clock (10 ms at most): two changes within one tick get the same time."""
_PATH_ONLY_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC


class ReplacementGuard:
    """The names of one open database and the files that they led to when it was opened. Close it with the database.

    A check of every name takes some eight microseconds, a tenth of the cheapest write. So the folder's times are
    compared first: whatever is created, removed or renamed in it, the folder itself included, changes them. While they
    are those of the last full check, every name in it leads where it led. That is exact unless two changes can have the
    same time, so it is relied on only when the last change is older than the coarsest tick, on a file system that
    stores fractions of a second. If a folder further up is renamed, database and WAL move together; the next verb that
    begins two milliseconds later notices it.

    The ``-wal`` is not checked with ``lstat``: Linux would then have to give it a finer timestamp at the next write,
    and the disk would have to store it (measured on ext4: 16 µs of processor time and 30 µs per commit). The name that
    its descriptor has in ``/proc`` tells whether it was removed or renamed; in between it is enough that the name
    exists.
    Source: https://docs.kernel.org/filesystems/multigrain-ts.html

    Args:
        path: the database file, without symbolic links in its path.
        wal: it is open in WAL mode, with a ``-wal`` and a ``-shm``.
        gate: it has a gate file.

    Attributes:
        read_valid_until: until when a read that begins relies on the last check, by ``time.monotonic()``; always in the
            past where there is a rollback journal, which is created by name.
        write_valid_until: the same for a write, which checks again after its commit.
    """

    def __init__(self, path: Path, *, wal: bool, gate: bool = False) -> None:
        self._path = path
        self._database = _identify(f"{path}")
        # Both coordinate the writers; the data is in the database and its -wal.
        self._companions = [_identify(f"{path}{suffix}") for suffix, there in (("-shm", wal), ("-gate", gate)) if there]
        self._shm = f"{path}-shm" if wal else ""
        self._shm_bytes = lstat(self._shm).st_size if wal else 0
        self.read_valid_until = self.write_valid_until = 0.0
        self._refusal: str | None = None
        self._wal, self._fd_link, self._fd_target = "", "", ""
        self._wal_fd = self._folder_fd = -1
        self._checked_folder_times = (0, 0)  # the folder's times at the last full check; no folder has (0, 0)
        self.wal_identity: FileId | None = None
        if wal:
            self._open_wal(f"{path}-wal")
            with suppress(OSError):
                self._folder_fd = move_above_stdio(os.open(path.parent, _PATH_ONLY_FLAGS | os.O_DIRECTORY))

    def _open_wal(self, name: str) -> None:
        self._wal = name
        held = _identify(name)
        self.wal_identity = held[1:]
        self._wal_fd = move_above_stdio(os.open(name, _PATH_ONLY_FLAGS))
        link = f"/proc/self/fd/{self._wal_fd}"
        try:
            self._fd_link, self._fd_target = link, os.readlink(link)
        except OSError:
            self._companions.append(held)

    def matches(self, database: FileId, wal_identity: FileId | None) -> bool:
        """Return whether the names led to the files with these ids."""
        return self._database[1:] == database and (wal_identity is None or wal_identity == self.wal_identity)

    def close(self) -> None:
        """Close the descriptors that serve the checks. There are no POSIX locks on these files that this could drop."""
        for fd in (self._wal_fd, self._folder_fd):
            if fd >= 0:
                os.close(fd)
        self._wal_fd = self._folder_fd = -1
        self._fd_link, self._checked_folder_times = "", (0, 0)

    def check_all(self) -> None:
        """Check every name before a verb begins.

        Raises:
            DatabaseReplaced: a name is gone or leads to another file. Every later call raises too.
            StorageFailed: a name cannot be checked.
            Unusable: the database was given a second name.
        """
        now = monotonic()
        times = self._folder_times()  # before the checks: a change that follows is noticed by the next call
        found = self._check_database()
        if times == (0, 0) or times != self._checked_folder_times:
            self._check_companions()
            self._checked_folder_times = times
        if self._shm:
            self._refuse_truncated_shm()
        if found.st_nlink > 1:
            raise hard_link_error(self._path)
        if self._wal:
            self.read_valid_until, self.write_valid_until = now + _READ_VALID_SEC, now + _WRITE_VALID_SEC

    def check_after_commit(self) -> None:
        """Check every name after a commit, before it is answered.

        Raises:
            DatabaseReplaced, StorageFailed: as for `check_all`.
        """
        if self._folder_fd >= 0 and self._refusal is None:
            folder = fstat(self._folder_fd)
            if (folder.st_mtime_ns, folder.st_ctime_ns) == self._checked_folder_times:
                return
        times = self._folder_times()
        self._check_database()
        self._check_companions()
        self._checked_folder_times = times

    def check_transaction(self, connection: apsw.Connection) -> None:
        """Check the file and the journal that a transaction which has just begun works on.

        An idle rollback journal holds no lock, so another process can put the database into WAL mode meanwhile. SQLite
        would silently follow it, on a network file system too.

        Raises:
            DatabaseReplaced, StorageFailed, Unusable: as for `check_all`.
            UnsafeFileSystem: the database is in WAL mode now.
        """
        self.check_all()
        if self._wal:
            return
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # the header is read with the first page
        if str(connection.pragma("journal_mode")).lower() != "delete":
            raise UnsafeFileSystem(
                f"{self._path} was put into WAL mode while this registry had it open with a rollback journal; nothing "
                "was written",
                advice="open a new registry; if other hosts use the database, stop them and mark it as shared first",
                command="run the command again; if other hosts use the database, stop them and run 'jobdb init "
                "--shared' first",
            )

    def _refuse_truncated_shm(self) -> None:
        """Refuse a truncated -shm: a process that accesses the missing part of SQLite's mapping is killed by SIGBUS."""
        try:
            if lstat(self._shm).st_size < self._shm_bytes:
                self._refuse(f"{self._shm} was truncated")
        except OSError as error:
            self._raise_stat_failed(self._shm, error)

    def _check_database(self) -> os.stat_result:
        if self._refusal is not None:
            raise self._replaced_error(self._refusal)
        name, device, inode = self._database
        try:
            found = lstat(name)
        except OSError as error:
            self._raise_stat_failed(name, error)
        if found.st_ino != inode or found.st_dev != device:
            self._refuse(f"{name} is another file")
        if not found.st_size:
            self._refuse(f"{name} was emptied")
        return found

    def _check_companions(self) -> None:
        try:
            for name, device, inode in self._companions:
                beside = lstat(name)
                if beside.st_ino != inode or beside.st_dev != device:
                    self._refuse(f"{name} is another file")
            if self._fd_link and readlink(self._fd_link) != self._fd_target:
                self._refuse(f"{self._wal} is gone")
            if self._wal and not access(self._wal, F_OK):
                self._refuse(f"{self._wal} is gone")
        except OSError as error:
            self._raise_stat_failed(str(error.filename), error)

    def _folder_times(self) -> tuple[int, int]:
        """Return the folder's times; (0, 0) if a later change could have the same ones."""
        if self._folder_fd < 0:
            return 0, 0
        folder = fstat(self._folder_fd)
        times = folder.st_mtime_ns, folder.st_ctime_ns
        now = time.time_ns()
        return (
            times if all(when % 10**9 and not 0 <= now - when < _TIMESTAMP_GRANULARITY_NS for when in times) else (0, 0)
        )

    def intact(self) -> bool:
        """Return whether every name still leads to the file that is open."""
        try:
            self.check_all()
        except (DatabaseReplaced, StorageFailed):
            return False
        except Unusable:
            pass  # a second name
        return True

    def _raise_stat_failed(self, name: str, error: OSError) -> NoReturn:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            self._refuse(f"{name} is gone")
        raise StorageFailed(
            f"cannot check {name}: {error.strerror}; it is not known whether this call did anything. Check the disk "
            "and the permissions of the folder, and read the state before you go on"
        ) from error

    def _refuse(self, what: str) -> NoReturn:
        self.read_valid_until = self.write_valid_until = 0.0
        self._refusal = (
            f"{what}: it was removed, renamed, replaced or truncated while this registry had it open. What this call "
            f"did is not in the database that others find at {self._path}, and this registry refuses further verbs"
        )
        raise self._replaced_error(self._refusal)

    @staticmethod
    def _replaced_error(message: str) -> DatabaseReplaced:
        return DatabaseReplaced(
            message,
            advice="see what is there, put back what belongs there (or restore a backup), then open a new registry",
            command="see what is there, and put back what belongs there ('jobdb restore' takes a backup)",
        )


def _identify(name: str) -> tuple[str, int, int]:
    found = lstat(name)
    return name, found.st_dev, found.st_ino
