"""Running a person's command for each event: tried again with growing pauses, never skipped.

Called by ``subscribe --exec``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from jobdb.system.subprocess_env import without_secrets
from jobdb.system.terminal import sanitize_json

from .output import warn

if TYPE_CHECKING:
    from jobdb.model import Event

_MAX_PAUSE_SEC = 60.0


def run_handler(command: str, event: Event, *, retries: int, pause_sec: float) -> bool:
    """Run a shell command for an event: the payload on its stdin, the event's name in its environment.

    The environment is this command's own, without the secrets in it (`jobdb.system.subprocess_env.SECRETS`).

    Args:
        command: for ``/bin/sh``.
        event: what it is run for.
        retries: how often a failure is tried again.
        pause_sec: the pause before the first repetition, in seconds; each one after it is twice as long.

    Returns:
        Whether it was successful in the end.
    """
    environment = {
        **without_secrets(os.environ),
        "JOBDB_JOB_ID": event.job_id,
        "JOBDB_EVENT": event.event.value,
        "JOBDB_SEQ": str(event.seq),
    }
    # A handler that prints what it gets prints it on our terminal, if that is where we are.
    shown = sys.stdout.isatty() or sys.stderr.isatty()
    payload = (sanitize_json(event.payload) if shown else event.payload).encode() + b"\n"
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(min(pause_sec * 2 ** (attempt - 1), _MAX_PAUSE_SEC))
        code = subprocess.run(command, shell=True, input=payload, env=environment, check=False).returncode
        if code == 0:
            return True
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        warn(
            f"the handler failed with {end} on event {event.seq} of job {event.job_id} "
            f"(try {attempt + 1} of {retries + 1})"
        )
    return False
