"""Giving a finished file its name: exclusively, or in exchange for the file that stands there.

Called by backup, restore, migrate and export, and where a database is trusted. A file is built under a name of its own
beside its target (`ScratchFile`, `write_file`); its final name is taken with one system call, so at every moment the
name stands for a whole file. Linux can rename without replacing, and exchange two names (renameat2); where the file
system cannot, hard links serve.
Source: https://man7.org/linux/man-pages/man2/rename.2.html
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StorageFailed
from ..system.owned_fd import OwnedFd
from . import ofd_locks
from .permissions import COMPANION_SUFFIXES, JOURNAL_SUFFIXES, copy_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""Errors that say: this file system cannot do it."""
_IN_USE_BYTE = 1 << 62
"""Far from the bytes that SQLite locks. The lock says that a process is still building this file."""


def rename_noreplace(source: Path, target: Path) -> None:
    """Rename a file to a name that nothing has.

    Raises:
        FileExistsError: something of that name is there, a dangling link included.
        OSError: it cannot be renamed.
    """
    try:
        _renameat2(source, target, _NOREPLACE)
        return
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        # No hard links either: an empty file holds the name.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            os.rename(source, target)
        except OSError:
            os.unlink(target)
            raise
    else:
        os.unlink(source)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step.

    Returns:
        False, with nothing done, when the file system cannot do that.
    """
    try:
        _renameat2(one, other, _EXCHANGE)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def write_file(path: Path, content: bytes, *, follow_folder_link: bool = False) -> None:
    """Write a file of mode 0600 in one step: beside its place, synced, then renamed; the name is not synced.

    The file beside it is one that nobody else can have made, and both are found in the folder as it is when it is
    opened: nothing is written through a link, and nothing into a file that is known by another name too.

    Args:
        path: the file.
        content: what it is to hold.
        follow_folder_link: its folder may be a link: it is the one that was named.

    Raises:
        OSError: it could not be written; what was there before is still there.
    """
    import secrets

    follow = 0 if follow_folder_link else os.O_NOFOLLOW
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
    try:
        temporary = f".{path.name}.{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            try:
                os.fchmod(fd, 0o600)
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def _renameat2(source: Path, target: Path, flags: int) -> None:
    import ctypes  # here, as below: who only opens a registry names no file

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    old, new = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, ctypes.c_char_p(old), _AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))


def utc_timestamp() -> str:
    """Return the current second for a file's name, in UTC: ``20260619T093200Z``."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def numbered_names(stem: str, suffix: str = "") -> Iterator[str]:
    """Generate names: ``stem``, and for as long as it is taken ``stem-2``, ``stem-3`` …, each with the suffix."""
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


def take_first_free(names: Iterable[Path], take: Callable[[Path], object]) -> Path:
    """Return the first of the names that could be taken.

    Args:
        names: names without end, such as `numbered_names` ones.
        take: takes a name exclusively; raises FileExistsError where something has it.
    """
    for name in names:
        with suppress(FileExistsError):
            take(name)
            return name
    raise AssertionError("there is always another name")


def is_free(path: Path) -> bool:
    """Tell whether neither a file of this name is there nor one that SQLite would take for a part of it."""
    return not any(os.path.lexists(f"{path}{suffix}") for suffix in ("", *JOURNAL_SUFFIXES))


class ScratchFile:
    """A private file beside its target in which something is built; removed at the end unless it got its name.

    It is made exclusively under a random name, so a file or link that somebody put there is neither followed nor
    replaced. A lock says that it is in use: what a process that died has left is removed by the next one.

    Args:
        target: the name that it is for; its folder exists, and its links are followed.
        purpose: a word for the scratch file's name.

    Attributes:
        path: its present name.

    Raises:
        StorageFailed: it cannot be made.
    """

    def __init__(self, target: Path, purpose: str) -> None:
        import secrets

        self._file: OwnedFd | None = None
        self._placed = False
        _remove_abandoned(target, purpose)
        try:
            while True:
                self.path = target.with_name(f"{target.name}.{purpose}-{secrets.token_hex(4)}")
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
                self._file = OwnedFd(os.open(self.path, flags, 0o600))
                if _lock_as_in_use(self.descriptor) is not False and self.is_in_place():
                    break
                self.close()  # somebody took it for abandoned before it was marked
            copy_owner(self.descriptor, os.stat(target.parent), mode=False)
        except OSError as error:
            self.close()
            raise StorageFailed(
                f"cannot make a file in {target.parent}: {error.strerror}; check its owner, mode and disk"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        """Open for reading and writing."""
        assert self._file is not None
        return self._file.fileno()

    def is_in_place(self) -> bool:
        """Tell whether its name still stands for it."""
        try:
            found, ours = os.lstat(self.path), os.fstat(self.descriptor)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def sync(self) -> None:
        """Put its content on disk.

        Raises:
            StorageFailed: the disk did not confirm it, or somebody put another file in its place.
        """
        if not self.is_in_place():
            raise StorageFailed(f"{self.path} was removed or replaced by another process; nothing was changed")
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            raise StorageFailed(
                f"the disk did not confirm {self.path}: {error.strerror}; nothing was changed. Check the disk"
            ) from error

    def name(self, target: Path) -> None:
        """Give it a name that nothing has.

        Raises:
            FileExistsError: something of that name is there; it is still a scratch file.
            StorageFailed: it cannot be renamed.
        """
        try:
            rename_noreplace(self.path, target)
        except FileExistsError:
            raise
        except OSError as error:
            raise StorageFailed(
                f"cannot give {target} its name: {error.strerror}; nothing was changed. Check the folder and its disk"
            ) from error
        self.path, self._placed = target, True

    def replace(self, target: Path) -> None:
        """Put it in the place of the file of that name, which is gone if it has no other name."""
        os.rename(self.path, target)
        self.path, self._placed = target, True

    def rename_back(self, path: Path) -> None:
        """Make it a scratch file again, under another name."""
        rename_noreplace(self.path, path)
        self.path, self._placed = path, False

    def close(self) -> None:
        """Remove it unless it was given its name, and close it: last, for that drops this process's locks on it."""
        if self._file is None or self._file.closed:
            return
        if not self._placed:
            for suffix in ("", *COMPANION_SUFFIXES):
                if not suffix and not self.is_in_place():
                    continue
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._file.close()

    def __del__(self) -> None:
        self.close()  # where an exception has cut off the block, or the end of it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _remove_abandoned(target: Path, purpose: str) -> None:
    """Remove what processes that died have left of earlier runs for the same target."""
    ours = re.compile(re.escape(f"{target.name}.{purpose}-") + "[0-9a-f]{8}")
    try:
        names = [name for name in os.listdir(target.parent) if ours.fullmatch(name)]
    except OSError:
        return
    for name in names:
        path = target.with_name(name)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock_as_in_use(descriptor):
                for suffix in ("", *COMPANION_SUFFIXES):
                    Path(f"{path}{suffix}").unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _lock_as_in_use(descriptor: int) -> bool | None:
    """Lock the file as being built. None where that cannot be told: then nothing that is left is ever removed.

    A lock of the open file description and not of the process: SQLite's own closing of the file leaves it.
    """
    if not ofd_locks.AVAILABLE:
        return None
    try:
        ofd_locks.set_lock(descriptor, fcntl.F_WRLCK, _IN_USE_BYTE, 1)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True
