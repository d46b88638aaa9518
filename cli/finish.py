"""The commands that end a job: complete, fail, cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from .context import open_registry
from .output import json_line
from .parameters import Attempt, Data, Detail, JobId, Json
from .publish import publish_event

WirePayload = Annotated[bool, typer.Option("--json", help="Print the payload as it travels, on one line.")]


def complete(
    ctx: typer.Context,
    job: JobId,
    detail: Detail = "",
    data: Data = None,
    attempt: Attempt = None,
    json: WirePayload = False,
) -> None:
    """End a job well: publish 'completed'.

    Prints the event's seq. The end is final: nothing can be published afterwards.

    \b
    Example:
      jobdb complete 0f3a9c2d7b11 --attempt 1 --detail "all sorted"
    """
    publish_event(ctx, job, "completed", detail=detail, data=data, attempt=attempt, json=json)


def fail(
    ctx: typer.Context,
    job: JobId,
    detail: Detail = "",
    data: Data = None,
    attempt: Attempt = None,
    json: WirePayload = False,
) -> None:
    """End a job as failed: publish 'error'.

    Prints the event's seq. The end is final: register a new job to try again.

    \b
    Example:
      jobdb fail 0f3a9c2d7b11 --attempt 1 --detail "the tests do not pass"
    """
    publish_event(ctx, job, "error", detail=detail, data=data, attempt=attempt, json=json)


def cancel(
    ctx: typer.Context,
    job: JobId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept as the job's detail.")
    ] = "cancelled",
    json: Json = False,
) -> None:
    """End a pending or running job as cancelled.

    Whoever works on it is refused from then on. Cancelling a cancelled job changes nothing.

    \b
    Example:
      jobdb cancel 0f3a9c2d7b11 --reason "not needed any more"
    """
    with open_registry(ctx) as registry:
        cancelled = registry.cancel(job, reason=reason)
    if json:
        json_line(cancelled.as_dict())
