"""The job and the attempt that a worker's environment names: JOBDB_JOB_ID and JOBDB_ATTEMPT.

``jobdb claim --export`` prints both. Called by the commands whose JOB and --attempt default to them; imports nothing
that costs time, for ``publish`` is among them.
"""

from __future__ import annotations

import os

from jobdb.errors import InvalidInput

JOB_ID_VARIABLE = "JOBDB_JOB_ID"
ATTEMPT_VARIABLE = "JOBDB_ATTEMPT"


def job_of_environment() -> str | None:
    """Return the job of ``JOBDB_JOB_ID``; None if the variable is not set, or empty."""
    return os.environ.get(JOB_ID_VARIABLE) or None


def resolve_job(job: str | None) -> str:
    """Return the given job, else that of the environment.

    Raises:
        InvalidInput: neither names one.
    """
    job = job_of_environment() if job is None else job
    if job is None:
        raise InvalidInput(
            f"the job is missing; name it, or set {JOB_ID_VARIABLE}, as the output of 'jobdb claim --export' does"
        )
    return job


def resolve_attempt(job: str, attempt: int | None) -> int | None:
    """Return the given attempt, else that of the environment if it is one of this job.

    An attempt is a number of one job: ``JOBDB_ATTEMPT`` is that of ``JOBDB_JOB_ID``, and not used for another job. If
    ``JOBDB_JOB_ID`` is not set, it is that of the job that the command names.

    Raises:
        InvalidInput: the variable is needed and is not a number.
    """
    text = os.environ.get(ATTEMPT_VARIABLE)
    if attempt is not None or not text or job_of_environment() not in (None, job):
        return attempt
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidInput(f"{ATTEMPT_VARIABLE} is {text!r:.40}, not the number of an attempt; unset it, or correct it")
    return int(text)
