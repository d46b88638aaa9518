"""The job that a server belongs to: the one of its environment, if it was started for an attempt of one.

Called by ``jobdb mcp`` before it serves; reads the environment and, to learn who ends the job, the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core import arguments
from ..errors import InvalidInput

if TYPE_CHECKING:
    from ..registry import Registry

JOB_ID_VARIABLE = "JOBDB_JOB_ID"
ATTEMPT_VARIABLE = "JOBDB_ATTEMPT"


@dataclass(frozen=True, slots=True)
class OwnJob:
    """The attempt that a server speaks for.

    Attributes:
        job_id: the job.
        attempt: the attempt of the claim.
        is_run: True if ``jobdb work`` runs it: then that renews the lease, and the exit code ends the job.
    """

    job_id: str
    attempt: int
    is_run: bool


def own_job(registry: Registry, environ: Mapping[str, str]) -> OwnJob | None:
    """Return the job of the environment; None if it names none.

    One variable without the other is refused: a server that took that for "no job" would offer all jobs to an agent
    that is to see its own.

    Raises:
        InvalidInput: the variables name no attempt.
        UnknownJob: the database has no such job.
    """
    job_id, number = environ.get(JOB_ID_VARIABLE), environ.get(ATTEMPT_VARIABLE)
    if not job_id and not number:
        return None
    if not job_id or not number:
        given, missing = (JOB_ID_VARIABLE, ATTEMPT_VARIABLE) if job_id else (ATTEMPT_VARIABLE, JOB_ID_VARIABLE)
        raise InvalidInput(
            f"{given} is set, and {missing} is not",
            advice="set both, or neither; an agent's configuration may have to name the variables that its servers get",
        )
    if not (number.isascii() and number.isdigit() and len(number) <= 16):
        raise InvalidInput(f"{ATTEMPT_VARIABLE} is {number!r:.40}, not the number of an attempt")
    job = registry.get(arguments.job_id(job_id))
    attempt = int(number)
    is_run = any(each.attempt == attempt for each in registry.attempts(job.job_id))
    return OwnJob(job.job_id, attempt, is_run)
