"""The files of an open database, compared by name with what is held open.

A name can be removed, renamed or given to another file while a connection goes on working on what it opened: ``rm -r``,
``git clean``, ``mv``, a folder put in the place of another. What is committed then is in no database that anybody can
find, and two workers can claim the same job. So the names of the database, its ``-wal`` and its ``-shm`` must still
lead to the files (device and inode) that this process has open: for a read at a moment after it was asked for, for a
write after its commit, before it is answered. While the files are open their inode numbers are not given to others.

Only ``lstat`` is used: opening and closing a file by hand drops this process's own locks on it.
"""

from __future__ import annotations

import os
import stat
import time
from os import F_OK, access, lstat, readlink
from typing import TYPE_CHECKING, NoReturn

from ...errors import DatabaseReplaced, StorageFailed, Unusable

if TYPE_CHECKING:
    from pathlib import Path

WRITES_TRUST_SEC = 0.001
"""For so long a verb that begins believes the last look: one that writes looks again when it has committed."""
READS_TRUST_SEC = 0.00025
"""A read does not, and a look costs more than half of the cheapest one."""


def refuse_hard_links(path: Path) -> None:
    """Refuse a database file that has a second name.

    Each name would have a log, a gate and locks of its own: SQLite finds them by the name that it was given.

    Raises:
        Unusable: it has more than one name.
    """
    found = os.stat(path)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise _two_names(path)


def _two_names(path: Path) -> Unusable:
    return Unusable(
        f"{path} has a second name (a hard link), and who opens that one has another write-ahead log: commits would be "
        f"lost. Nothing was written. Find it with 'find FOLDER -xdev -samefile {path}' and remove it; a copy, if "
        "one is wanted, is made by jobdb backup after that"
    )


class HeldFiles:
    """The names of one open database and the files that they led to when it was opened. Close it with the database.

    The ``-wal`` is not looked at with ``lstat``: Linux would have to give it a finer timestamp at the next write, and
    the disk to store that (measured on ext4: 16 µs of processor time and 30 µs a commit). The name that its descriptor
    has in ``/proc`` says whether it was removed or renamed, and in between it is enough that there is one.
    Source: https://docs.kernel.org/filesystems/multigrain-ts.html

    Args:
        path: the database file, without links in its name.
        wal: it is open in WAL mode, with a ``-wal`` and a ``-shm``.
        gate: there is a gate file, too.
    """

    def __init__(self, path: Path, *, wal: bool, gate: bool = False) -> None:
        self._path = path
        self._database = _held(f"{path}")
        # They keep order among writers; the data lies in the others.
        self._beside = [_held(f"{path}{suffix}") for suffix, there in (("-shm", wal), ("-gate", gate)) if there]
        self._index = f"{path}-shm" if wal else ""
        self._index_bytes = lstat(self._index).st_size if wal else 0
        self._looked = time.monotonic()
        self._refusal: str | None = None
        self._log, self._link, self._linked = "", "", ""
        self._log_fd = -1
        self.log: tuple[int, int] | None = None
        if wal:
            self._hold_log(f"{path}-wal")

    def _hold_log(self, name: str) -> None:
        self._log = name
        held = _held(name)
        self.log = held[1:]
        self._log_fd = os.open(name, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
        link = f"/proc/self/fd/{self._log_fd}"
        try:
            self._link, self._linked = link, os.readlink(link)
        except OSError:
            self._beside.append(held)

    def is_what(self, database: tuple[int, int], log: tuple[int, int] | None) -> bool:
        """Whether the names led to the files of these devices and inodes."""
        return self._database[1:] == database and (log is None or log == self.log)

    def close(self) -> None:
        """Close what is held open to look at it. The ``-wal`` carries no locks that this could drop."""
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd, self._link = -1, ""

    def check_index(self, now: float) -> None:
        """Look whether the ``-shm`` was cut short, before SQLite reads it, unless the last look was a moment ago.

        SQLite has it mapped into memory: who reads what was cut off is killed (SIGBUS).

        Args:
            now: by ``time.monotonic()``.

        Raises:
            DatabaseReplaced: it was. It raises from then on.
            StorageFailed: it cannot be looked at.
        """
        if now - self._looked < WRITES_TRUST_SEC or not self._index:
            return
        try:
            if lstat(self._index).st_size < self._index_bytes:
                self._refuse(f"{self._index} was cut short")
        except OSError as error:
            self._unseen(self._index, error)

    def check_before(self, trust_sec: float) -> None:
        """Look at every name before a verb begins, unless that was done a moment ago.

        Args:
            trust_sec: how old the last such look may be, in seconds.

        Raises:
            DatabaseReplaced: a name is gone or leads to another file. It raises from then on.
            StorageFailed: a name cannot be looked at.
            Unusable: the database has been given a second name.
        """
        now = time.monotonic()
        if now - self._looked < trust_sec and self._refusal is None:
            return
        found = self.check()
        try:
            for name, device, inode in self._beside:
                beside = lstat(name)
                if beside.st_ino != inode or beside.st_dev != device:
                    self._refuse(f"{name} is another file")
                if beside.st_size < self._index_bytes and name == self._index:
                    self._refuse(f"{name} was cut short")
            if self._link and readlink(self._link) != self._linked:
                self._refuse(f"{self._log} is gone")
        except OSError as error:
            self._unseen(str(error.filename), error)
        if found.st_nlink > 1:
            raise _two_names(self._path)
        self._looked = now

    def check(self) -> os.stat_result:
        """Look at the database's name, and whether the log is there, after a commit and before it is answered.

        Raises:
            DatabaseReplaced, StorageFailed: as for `check_before`.
        """
        if self._refusal is not None:
            raise DatabaseReplaced(self._refusal)
        name, device, inode = self._database
        try:
            found = lstat(name)
        except OSError as error:
            self._unseen(name, error)
        if found.st_ino != inode or found.st_dev != device:
            self._refuse(f"{name} is another file")
        if not found.st_size:
            self._refuse(f"{name} was emptied")
        if self._log and not access(self._log, F_OK):
            self._refuse(f"{self._log} is gone")
        return found

    def intact(self) -> bool:
        """Whether every name still leads to the file that is open."""
        try:
            self.check_before(0.0)
        except (DatabaseReplaced, StorageFailed):
            return False
        except Unusable:
            pass  # a second name
        return True

    def _unseen(self, name: str, error: OSError) -> NoReturn:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            self._refuse(f"{name} is gone")
        raise StorageFailed(
            f"cannot look at {name}: {error.strerror}; whether this call did anything is not known. Check the disk and "
            "the rights of the folder, and read the state before going on"
        ) from error

    def _refuse(self, what: str) -> NoReturn:
        self._refusal = (
            f"{what}: it was removed, renamed, replaced or cut while this registry had it open. What this call did is "
            f"not in the database that others find at {self._path}, and this registry does nothing more. See what lies "
            "there, put back what belongs there ('jobdb restore' takes a backup), then open the registry anew"
        )
        raise DatabaseReplaced(self._refusal)


def _held(name: str) -> tuple[str, int, int]:
    found = lstat(name)
    return name, found.st_dev, found.st_ino
