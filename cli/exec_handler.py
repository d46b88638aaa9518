"""Runs the user's command for an event: retried with growing pauses, never skipped.

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

from .claimed_job import ATTEMPT_VARIABLE
from .messages import print_warning

if TYPE_CHECKING:
    from jobdb.model import Event

_MAX_PAUSE_SEC = 60.0


def run_handler(command: str, event: Event, *, retries: int, pause_sec: float) -> bool:
    """Run a shell command for an event, with the payload on its stdin and the event's identity in its environment.

    The rest of the environment is this process's own without its secrets (`jobdb.system.subprocess_env.SECRETS`), and
    without the attempt of a job that this process may itself be part of: the event's job is another.

    Args:
        command: what ``/bin/sh`` runs.
        event: the event to handle.
        retries: how often a failed command is run again.
        pause_sec: the pause before the first retry, in seconds; it doubles with each further one.

    Returns:
        True when the command was successful in the end.
    """
    environment = {
        **without_secrets(os.environ),
        "JOBDB_JOB_ID": event.job_id,
        "JOBDB_EVENT": event.event.value,
        "JOBDB_SEQ": str(event.seq),
    }
    environment.pop(ATTEMPT_VARIABLE, None)
    # A handler that prints its input prints it on our terminal, if we have one.
    shown = sys.stdout.isatty() or sys.stderr.isatty()
    payload = (sanitize_json(event.payload) if shown else event.payload).encode() + b"\n"
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(min(pause_sec * 2 ** (attempt - 1), _MAX_PAUSE_SEC))
        code = subprocess.run(command, shell=True, input=payload, env=environment, check=False).returncode
        if code == 0:
            return True
        failure = f"signal {-code}" if code < 0 else f"exit code {code}"
        print_warning(
            f"the command failed with {failure} for event {event.seq} of job {event.job_id} "
            f"(run {attempt + 1} of {retries + 1})"
        )
    return False
