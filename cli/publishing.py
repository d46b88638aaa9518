"""The command that agents run once an event: publish. What it imports is most of what it costs."""

from __future__ import annotations

from typing import Annotated

import typer

from . import inputs
from .completing import events
from .output import line
from .parameters import Attempt, Data, Detail, JobId
from .settings import registry_of


def publish(
    ctx: typer.Context,
    job: JobId,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="What happened.", autocompletion=events)],
    detail: Detail = "",
    data: Data = None,
    attempt: Attempt = None,
    json: Annotated[bool, typer.Option("--json", help="Print the payload as it travels, on one line.")] = False,
) -> None:
    """Record an event about a job and print its seq.

    EVENT is started, progress, permission_required, completed or error. The event gets the next seq, is
    signed with the job's token and, if the job has a broker, waits in the outbox until 'jobdb relay' has
    delivered it. A worker gives --attempt (or JOBDB_ATTEMPT), so that it is refused once its claim was
    taken over.

    \b
    Examples:
      jobdb publish 0f3a9c2d7b11 progress --detail "step 3 of 10" --data '{"pct": 30}' --attempt 1
      jobdb publish 0f3a9c2d7b11 completed --json
    """
    publish_one(ctx, job, event, detail=detail, data=data, attempt=attempt, json=json)


def publish_one(
    ctx: typer.Context, job: str, event: str, *, detail: str, data: str | None, attempt: int | None, json: bool
) -> None:
    """Publishes one event and prints its seq, or its payload."""
    facts = inputs.json_object(data, option="--data")
    with registry_of(ctx) as registry:
        recorded = registry.publish(job, event, detail=detail, data=facts, attempt=attempt)
    line(recorded.payload if json else str(recorded.seq))
