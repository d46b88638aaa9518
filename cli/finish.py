"""The commands that end a job: complete, fail, cancel.

Called by the ``jobdb`` group (``commands.py``), when one of them is run; calls ``publish_event`` of ``publish``, and
the registry to cancel.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .claimed_job import resolve_attempt, resolve_job
from .context import open_registry
from .output import print_json
from .parameters import AsJson, Attempt, ClaimedJobId, Data, Detail, JobId, PayloadAsJson
from .publish import publish_event


def complete(
    ctx: typer.Context,
    job: ClaimedJobId = None,
    detail: Detail = "",
    data: Data = None,
    attempt: Attempt = None,
    as_json: PayloadAsJson = False,
) -> None:
    """End a job as completed: publish 'completed'.

    Prints the event's seq. This is final: no further event of the job can be published.

    \b
    Example:
      jobdb complete 0f3a9c2d7b11 --attempt 1 --detail "all sorted"
    """
    job = resolve_job(job)
    attempt = resolve_attempt(job, attempt)
    publish_event(ctx, job, "completed", detail=detail, data=data, attempt=attempt, as_json=as_json)


def fail(
    ctx: typer.Context,
    job: ClaimedJobId = None,
    detail: Detail = "",
    data: Data = None,
    attempt: Attempt = None,
    as_json: PayloadAsJson = False,
) -> None:
    """End a job as failed: publish 'error'.

    Prints the event's seq. This is final, also for a job that was registered with --max-attempts and has tries left:
    a worker that wants it to be tried again gives it back with 'jobdb release'. ('jobdb work' itself decides by the
    tries that are left what a failure of its agent means.)

    \b
    Example:
      jobdb fail 0f3a9c2d7b11 --attempt 1 --detail "the tests do not pass"
    """
    job = resolve_job(job)
    attempt = resolve_attempt(job, attempt)
    publish_event(ctx, job, "error", detail=detail, data=data, attempt=attempt, as_json=as_json)


def cancel(
    ctx: typer.Context,
    job: JobId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="The reason, stored as the job's detail.")
    ] = "cancelled",
    as_json: AsJson = False,
) -> None:
    """Cancel a pending or running job.

    From then on its worker's events are refused. Cancelling a cancelled job changes nothing. The job must be named: it
    is never taken from JOBDB_JOB_ID.

    \b
    Example:
      jobdb cancel 0f3a9c2d7b11 --reason "not needed any more"
    """
    with open_registry(ctx) as registry:
        cancelled = registry.cancel(job, reason=reason)
    if as_json:
        print_json(cancelled.as_dict())
