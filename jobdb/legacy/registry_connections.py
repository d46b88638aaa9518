"""The databases of the drop-in module's folders: their URLs, opened once per process, closed before a fork.

Called only by ``registry.py``.
"""

from __future__ import annotations

import atexit
import os
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .database.statements import LEGACY
from .folder.layout import WORKSPACE_FOLDERS

if TYPE_CHECKING:
    from ..registry import Registry

Folder = str | os.PathLike[str]
open_registries: dict[tuple[str, int], Registry] = {}
"""The open registries, by URL and process."""


def database_url(registry_dir: Folder) -> str:
    """Return the URL of the database that replaces a registry folder.

    It is ``$JOBDB_URL``, or else ``.jobdb/jobs.db`` in the folder's workspace.
    """
    given = os.environ.get("JOBDB_URL")
    if given:
        return given
    folder = Path(registry_dir).absolute()
    if folder.name == "jobs" and folder.parent.name in WORKSPACE_FOLDERS:
        folder = folder.parent.parent
    return f"sqlite:///{folder / '.jobdb' / 'jobs.db'}"


def open_registry(registry_dir: Folder) -> Registry:
    """Return the registry for a folder, opened once per process.

    Raises:
        DatabaseMissing: there is no database yet; the message names the command that creates one.
    """
    from ..registry import Registry

    url = database_url(registry_dir)
    key = (url, os.getpid())
    if key not in open_registries:
        registry = Registry.open(url)
        LEGACY.load()
        _close_before_forks()
        open_registries[key] = registry
    return open_registries[key]


def close_idle() -> None:
    """Close the open registries, which are opened again on demand; skip it if another thread may be using one."""
    if threading.active_count() == 1:
        _close_all()
        open_registries.clear()


@cache
def _close_before_forks() -> None:
    """Close the registries before a fork, so that a child can open the database itself, as the old scripts could.

    SQLite forbids that while the parent has it open. Registered late, so that it runs before the engine's own hook.
    """
    os.register_at_fork(before=close_idle)


@atexit.register
def _close_all() -> None:
    for (_, pid), registry in open_registries.items():
        if pid == os.getpid():
            registry.close(checkpoint=False)
