"""The databases behind the folders of the drop-in module: which one, opened once per process, closed before a fork.

Called by ``registry.py`` alone.
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
"""By URL and process."""


def database_url(registry_dir: Folder) -> str:
    """Return the URL of the database that stands in for a registry folder.

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
    """Return the registry behind a folder; it is opened once per process.

    Raises:
        DatabaseMissing: there is no database yet; the message names the command that makes one.
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
    """Close what is open, to be opened again at need; with other threads about, one may be using it."""
    if threading.active_count() == 1:
        _close_all()
        open_registries.clear()


@cache
def _close_before_forks() -> None:
    """Let children that are forked open the database for themselves, as the old scripts' children could.

    SQLite forbids it while the parent has it open. Registered late: what it closes must not be at rest for the fork.
    """
    os.register_at_fork(before=close_idle)


@atexit.register
def _close_all() -> None:
    for (_, pid), registry in open_registries.items():
        if pid == os.getpid():
            registry.close(checkpoint=False)
