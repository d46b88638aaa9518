"""A scratch file: a private file beside its target, which is completed before it gets the target's name.

Used by backup, restore, migrate, copy and export. See `atomic_files` for the atomic change of names.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StorageFailed
from ..system.identifiers import file_id
from ..system.owned_fd import OwnedFd
from . import ofd_locks
from .atomic_files import rename_noreplace
from .permissions import COMPANION_SUFFIXES, copy_owner

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_IN_USE_BYTE = 1 << 62
"""Locked while a process builds the file; far from the bytes that SQLite locks."""


class ScratchFile:
    """A private file beside its target, which is removed at the end unless it was given a name.

    It is created exclusively under a random name, so an existing file or link is neither followed nor replaced. A lock
    marks it as in use: a file that a killed process has left behind is removed by the next process.

    Args:
        target: the file that it is to become; its folder exists, and symbolic links are resolved.
        purpose: a word for the scratch file's name.

    Attributes:
        path: its current name.

    Raises:
        StorageFailed: it cannot be created.
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
                self.close()  # it was removed as abandoned before it was marked
            copy_owner(self.descriptor, os.stat(target.parent), mode=False)
        except OSError as error:
            self.close()
            raise StorageFailed(
                f"cannot create a file in {target.parent}: {error.strerror}; check its owner, mode and disk"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        """Its descriptor, open for reading and writing."""
        assert self._file is not None
        return self._file.fileno()

    def is_in_place(self) -> bool:
        """Return whether its name still leads to this file."""
        try:
            found, ours = os.lstat(self.path), os.fstat(self.descriptor)
        except FileNotFoundError:
            return False
        return file_id(found) == file_id(ours)

    def sync(self) -> None:
        """Make its content durable.

        Raises:
            StorageFailed: the disk did not confirm it, or the file was replaced by another one.
        """
        if not self.is_in_place():
            raise StorageFailed(f"{self.path} was removed or replaced by another process; nothing was changed")
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            raise StorageFailed(
                f"the disk did not confirm {self.path}: {error.strerror}; nothing was changed. Check the disk"
            ) from error

    def publish_as(self, target: Path) -> None:
        """Give the file a name that is free.

        Raises:
            FileExistsError: the name is taken; it is still a scratch file.
            StorageFailed: it cannot be renamed.
        """
        try:
            rename_noreplace(self.path, target)
        except FileExistsError:
            raise
        except OSError as error:
            raise StorageFailed(
                f"cannot create {target}: {error.strerror}; nothing was changed. Check the folder and its disk"
            ) from error
        self.path, self._placed = target, True

    def replace(self, target: Path) -> None:
        """Replace the target with this file."""
        os.rename(self.path, target)
        self.path, self._placed = target, True

    def rename_back(self, path: Path) -> None:
        """Turn the file into a scratch file again, under another name."""
        rename_noreplace(self.path, path)
        self.path, self._placed = path, False

    def close(self) -> None:
        """Remove the file unless it was given a name; then close it, which drops this process's locks on it."""
        if self._file is None or self._file.closed:
            return
        if not self._placed:
            for suffix in ("", *COMPANION_SUFFIXES):
                if not suffix and not self.is_in_place():
                    continue
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._file.close()

    def __del__(self) -> None:
        self.close()  # for a block, or its exit, that an exception has interrupted

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _remove_abandoned(target: Path, purpose: str) -> None:
    """Remove scratch files for the same target that killed processes have left behind."""
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
    """Lock the file as in use; return whether that succeeded, or None if there are no such locks.

    Without them nothing is ever removed as abandoned. The lock belongs to the open file and not to the process, so it
    survives when SQLite closes the file.
    """
    if not ofd_locks.AVAILABLE:
        return None
    try:
        ofd_locks.set_lock(descriptor, fcntl.F_WRLCK, _IN_USE_BYTE, 1)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True
