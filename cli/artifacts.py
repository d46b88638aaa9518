"""Checks that a job created the files it was expected to create, inside one folder and nowhere else.

Called by ``wait --check-artifacts``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from jobdb.errors import InvalidInput


def missing_artifacts(folder: str, expected: Iterable[str]) -> list[tuple[str, str]]:
    """Return the expected paths that are missing, each with the reason.

    A path counts only when it is inside the folder after all symbolic links are resolved: a job cannot pass by linking
    to a file that existed before it. It must be a regular file, or, when its name ends in a slash, a folder.

    Args:
        folder: where to look for the files.
        expected: paths relative to the folder.

    Raises:
        InvalidInput: the folder is not a folder.
    """
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise InvalidInput(f"--check-artifacts: {folder!r} is not a folder; name the folder that the job worked in")
    checked = ((path, _fault(root, path)) for path in expected)
    return [(path, fault) for path, fault in checked if fault is not None]


def _fault(root: str, path: str) -> str | None:
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        return "is not a relative path inside the folder"
    resolved = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath((root, resolved)) != root:
        return "leads out of the folder"
    try:
        mode = os.stat(resolved).st_mode
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    if path.endswith("/"):
        return None if stat.S_ISDIR(mode) else "is not a folder"
    if stat.S_ISDIR(mode):
        return "is a folder, not a file"
    # A pipe, a socket or a device holds nothing that the job has created.
    return None if stat.S_ISREG(mode) else "is not a regular file"
