"""The killing of orphans that have fallen to the worker, when keepers and their server were killed.

Called by the worker, which is a child subreaper for this, through ``client.KeeperServer.kill_orphans``.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress

from .process_tree import children_of, stop_and_kill, with_descendants


def kill_orphans(known_pids: Collection[int]) -> int:
    """Kill and reap the children of this process that it does not know, with their descendants.

    It does not wait for their end: call it again until it returns 0.

    Args:
        known_pids: the process ids of all children that this process has started itself. Every other child is killed.

    Returns:
        how many were found alive.
    """
    orphans = [pid for pid in children_of(os.getpid()) if pid not in known_pids]
    if not orphans:
        return 0
    found = stop_and_kill(
        lambda visit: with_descendants(
            [pid for pid in children_of(os.getpid()) if pid not in known_pids], known_pids, visit
        ),
        groups=True,
    )
    for pid in orphans:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return len(found)
