"""The killing of what attempts have left whose worker, keeper server and keeper were all killed at once.

Called by the command runner when it begins. The next attempt of a job kills what earlier ones have left, but a job that
has ended has no next attempt. Calls the registry, to ask which claims still stand, and what the keeper finds processes
by.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..core import arguments
from ..errors import JobdbError
from ..model import JobStatus
from .job_folder import lock_path
from .keeper.job_lock import JobLock
from .keeper.leftovers import find_leftovers, find_marks
from .keeper.process_tree import stop_and_kill

if TYPE_CHECKING:
    from ..model import AttemptKey
    from ..registry import Registry

_PATIENCE_SEC = 5.0
_LOOK_SEC = 0.02


def kill_stray_processes(registry: Registry, registry_id: str) -> int:
    """Kill the processes of this registry's attempts that nobody keeps and whose claims are gone.

    Args:
        registry: the registry.
        registry_id: its id, which begins the marks of its processes.

    Returns:
        How many were killed.
    """
    marks = {mark for mark in find_marks(os.fsencode(f"{registry_id}:")) if _key(mark) is not None}
    if not marks:
        return 0
    try:
        states = registry.claim_states([key for mark in marks if (key := _key(mark)) is not None])
    except JobdbError:
        return 0  # the worker meets the error, too
    killed = 0
    for mark in sorted(marks):
        key = _key(mark)
        if key is not None and states[key] is not JobStatus.RUNNING:
            with suppress(OSError, JobdbError):
                killed += _kill(registry_id, key, mark)
    return killed


def _kill(registry_id: str, key: AttemptKey, mark: bytes) -> int:
    """Kill the processes with a job's mark, unless a keeper holds the job's lock; return how many."""
    lock = JobLock(os.fsencode(lock_path(registry_id, key[0])))
    if not lock.acquire():
        return 0  # its keeper ends it
    killed: set[int] = set()
    end = time.monotonic() + _PATIENCE_SEC
    try:
        while found := stop_and_kill(lambda visit: find_leftovers(mark, visit), groups=False):
            killed |= found.keys()
            if time.monotonic() > end:
                break
            time.sleep(_LOOK_SEC)
    finally:
        lock.release()
    return len(killed)


def _key(mark: bytes) -> AttemptKey | None:
    """Return the attempt that a mark names: ``registry id:job id:attempt``."""
    _registry_id, _, rest = os.fsdecode(mark).partition(":")
    job_id, _, attempt = rest.rpartition(":")
    try:
        return (arguments.job_id(job_id), arguments.attempt(int(attempt)))
    except ValueError:  # somebody else's idea of a mark
        return None
