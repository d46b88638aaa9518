"""The worker's order to a keeper: the command to run, and where.

Used by the worker, which makes a `Launch` per attempt, and by ``client.py``, which passes it on.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An attempt of a job, for its keeper.

    Attributes:
        argv: the agent's program and arguments. Without a slash, it is searched for in the PATH of ``environment``.
        environment: all variables that the agent gets, and with it ``before`` and ``after``. The keeper adds
            JOBDB_PROCESS_MARK alone.
        folder: the folder in which they run.
        stdin: a file that is the agent's input; None for none. ``before`` and ``after`` have none.
        channel: the FIFO from which the keeper reads lines; the worker has made it.
        log: the file for output; None to keep only the last of it in memory.
        log_max_bytes: the largest size of that file.
        lock: the file of the job's lock on this host, the same for all attempts.
        mark: ``<registry id>:<job id>:<attempt>``.
        deadline: when all processes are killed unless it is extended, in seconds of `jobdb.system.boot_clock.boottime`.
        before: a shell command that runs first, and must succeed; None for none.
        after: a shell command that runs last if ``before`` has succeeded, unless the claim is lost; None for none.
        sweep: whether to search for processes of earlier attempts and kill them, as before every attempt but the first.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    stdin: str | None
    channel: str
    log: str | None
    log_max_bytes: int
    lock: str
    mark: str
    deadline: float
    before: str | None
    after: str | None
    sweep: bool


def encode_launch(launch: Launch) -> bytes:
    """Return a launch as the keeper reads it: all text as the bytes that the system knows."""

    def encoded(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    return marshal.dumps(
        {
            "argv": [os.fsencode(argument) for argument in launch.argv],
            "environment": {os.fsencode(name): os.fsencode(value) for name, value in launch.environment.items()},
            "folder": os.fsencode(launch.folder),
            "stdin": encoded(launch.stdin),
            "channel": os.fsencode(launch.channel),
            "log": encoded(launch.log),
            "log_max_bytes": launch.log_max_bytes,
            "lock": os.fsencode(os.path.abspath(launch.lock)),
            "mark": os.fsencode(launch.mark),
            "deadline": float(launch.deadline),
            "before": encoded(launch.before),
            "after": encoded(launch.after),
            "sweep": launch.sweep,
        },
        4,
    )
