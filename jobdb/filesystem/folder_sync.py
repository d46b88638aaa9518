"""The sync of a folder, which makes the names in it durable.

Called by the SQLite engine, the operations, the master key, the tickets and the export, after they create or rename a
file. Opens only the folder, never a file in it.
"""

from __future__ import annotations

import os

from ..errors import StorageFailed


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the names in a folder durable (fsync of a directory, POSIX).

    Raises:
        StorageFailed: the disk did not confirm it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # an ancestor that this user may enter but not list: its names are not ours to sync
    except OSError as problem:
        raise StorageFailed(f"cannot open the folder {path} to sync it: {problem.strerror}") from problem
    try:
        os.fsync(descriptor)
    except OSError as problem:
        raise StorageFailed(
            f"the disk did not confirm a new name in {path}: {problem.strerror}; check the disk, then try again"
        ) from problem
    finally:
        os.close(descriptor)
