"""The check that a database may be opened in its folder: the file system policy, and the probe if it requires one.

Called by open, restore, the ``migrate`` command and ``jobdb init --shared``, before anything is written. Calls the file
system; never opens the database.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import UnsafeFileSystem
from ...filesystem.placement import Placement, placement_for

OVERRIDE = "JOBDB_ALLOW_UNSAFE_FILESYSTEM"
"""Set to 1, this environment variable turns the refusal into a warning."""


def check_placement(path: Path) -> Placement:
    """Check how a database may use the file system of its folder.

    Args:
        path: the database file, which need not exist.

    Returns:
        The placement; its ``journal`` is None if the folder is unsafe and used nevertheless.

    Raises:
        UnsafeFileSystem: no database may be kept there; the message says what to change.
    """
    path = path.resolve()
    placement = placement_for(path.parent, file=path)
    if placement.journal == "wal":
        return placement
    from ...filesystem.probe.safe_folder import require_safe_folder

    try:
        require_safe_folder(placement)
    except UnsafeFileSystem as refusal:
        if os.environ.get(OVERRIDE) != "1":
            raise
        from ...system.caller_warnings import warn_caller

        warn_caller(f"{OVERRIDE}=1: used although {refusal}; commits can be lost there")
        return placement._replace(journal=None, reason=str(refusal))
    return placement
