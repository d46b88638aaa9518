"""Giving a finished file its name: exclusively, or in exchange for the file that stands there.

Called by backup, restore and migrate. A file is built under a name of its own beside its target (`ScratchFile`); its
final name is taken with one system call, so at every moment the name stands for a whole file. Linux can rename without
replacing, and exchange two names (renameat2); where the file system cannot, hard links serve.
Source: https://man7.org/linux/man-pages/man2/rename.2.html
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .descriptors import Owner
from .errors import StorageFailed
from .filemodes import COMPANIONS, JOURNALS, copy_owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""Errors that say: this file system cannot do it."""
_IN_USE_BYTE = 1 << 62
"""Far from the bytes that SQLite locks. The lock says that a process is still building this file."""


def rename_exclusively(source: Path, target: Path) -> None:
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


def _renameat2(source: Path, target: Path, flags: int) -> None:
    import ctypes  # here, as below: who only opens a registry names no file

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    old, new = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, ctypes.c_char_p(old), _AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))


def time_stamp() -> str:
    """Return the current second for a file's name, in UTC: ``20260619T093200Z``."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def numbered(stem: str, suffix: str = "") -> Iterator[str]:
    """Generate names: ``stem``, and for as long as it is taken ``stem-2``, ``stem-3`` …, each with the suffix."""
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


def is_free(path: Path) -> bool:
    """Tell whether neither a file of this name is there nor one that SQLite would take for a part of it."""
    return not any(os.path.lexists(f"{path}{suffix}") for suffix in ("", *JOURNALS))


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

        self._file: Owner | None = None
        self._placed = False
        _remove_abandoned(target, purpose)
        try:
            while True:
                self.path = target.with_name(f"{target.name}.{purpose}-{secrets.token_hex(4)}")
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
                self._file = Owner(os.open(self.path, flags, 0o600))
                if _marked_in_use(self.descriptor) is not False and self.is_in_place():
                    break
                self._file.close()  # somebody took it for abandoned before it was marked
            copy_owner(self.descriptor, os.stat(target.parent), mode=False)
        except OSError as error:
            raise StorageFailed(
                f"cannot make a file in {target.parent}: {error.strerror}; check its owner, mode and disk"
            ) from error

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
            rename_exclusively(self.path, target)
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

    def take_back(self, path: Path) -> None:
        """Make it a scratch file again, under another name."""
        rename_exclusively(self.path, path)
        self.path, self._placed = path, False

    def close(self) -> None:
        """Remove it unless it was given its name, and close it: last, for that drops this process's locks on it."""
        if self._file is None or self._file.closed:
            return
        if not self._placed:
            for suffix in ("", *COMPANIONS):
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
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and _marked_in_use(descriptor):
                for suffix in ("", *COMPANIONS):
                    Path(f"{path}{suffix}").unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _marked_in_use(descriptor: int) -> bool | None:
    """Lock the file as being built. None where that cannot be told: then nothing that is left is ever removed.

    A lock of the open file description and not of the process: SQLite's own closing of the file leaves it.
    """
    import struct

    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:
        return None
    try:
        fcntl.fcntl(descriptor, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _IN_USE_BYTE, 1, 0))
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True
