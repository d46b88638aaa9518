"""The database's URL as the processes of a job get it: absolute, and without a password.

Called by the worker. Reads the current folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..system.subprocess_env import without_secrets

if TYPE_CHECKING:
    from ..urls import DatabaseUrl


def url_for_children(url: DatabaseUrl) -> str:
    """Return a database's URL for processes that run in other folders.

    Example:
        >>> url_for_children(parse_url("postgresql://me:secret@host/jobs"))
        'postgresql://me@host/jobs'
    """
    if url.path is not None:
        return f"sqlite:///{url.path.absolute()}"
    return without_secrets({"JOBDB_URL": url.text})["JOBDB_URL"]
