"""The command that agents run once an event: publish. What it imports is most of what it costs."""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from . import inputs
from .completion import complete_events
from .context import open_registry
from .output import flush, hint, line, payload_line
from .parameters import Attempt, Data, Deliver, Detail, JobId, TicketFile


def publish(
    ctx: typer.Context,
    job: JobId,
    event: Annotated[
        str | None,
        typer.Argument(metavar="EVENT", help="What happened.", autocompletion=complete_events, show_default=False),
    ] = None,
    detail: Detail = "",
    data: Data = None,
    attempt: Attempt = None,
    ticket: TicketFile = None,
    deliver: Deliver = None,
    json: Annotated[bool, typer.Option("--json", help="Print the payload as it travels, on one line.")] = False,
) -> None:
    """Record an event about a job and print its seq.

    EVENT is started, progress, permission_required, completed or error. The event gets the next seq, is
    signed with the job's token and, if the job has a broker, waits in the outbox until 'jobdb relay' has
    delivered it. A worker gives --attempt (or JOBDB_ATTEMPT), so that it is refused once its claim was
    taken over.

    On a machine without the database, --ticket FILE stands in place of JOB: the event is signed with the
    ticket's token, kept in an outbox of this machine, and delivered from there.

    \b
    Examples:
      jobdb publish 0f3a9c2d7b11 progress --detail "step 3 of 10" --data '{"pct": 30}' --attempt 1
      jobdb publish 0f3a9c2d7b11 completed --json
      jobdb publish --ticket job.ticket progress --detail "step 3 of 10"
    """
    if ticket is not None:
        from .mqtt import publish_with_ticket

        if event is not None or attempt is not None:
            raise InvalidInput("a ticket names its job and its attempt: jobdb publish --ticket FILE EVENT")
        publish_with_ticket(ticket, job, detail=detail, data=data, json=json, deliver=deliver is not False)
        return
    if event is None:
        raise InvalidInput("which event? jobdb publish JOB EVENT")
    publish_event(ctx, job, event, detail=detail, data=data, attempt=attempt, json=json, deliver=deliver is True)


def publish_event(
    ctx: typer.Context,
    job: str,
    event: str,
    *,
    detail: str,
    data: str | None,
    attempt: int | None,
    json: bool,
    deliver: bool = False,
) -> None:
    """Publishes one event, prints its seq or its payload, and hands it to the broker if asked to."""
    facts = inputs.json_object(data, option="--data")
    from jobdb.model import EventKind

    if deliver:
        from .mqtt import deliver_job, require_mqtt_client

        require_mqtt_client()
    with open_registry(ctx) as registry:
        from jobdb.core import arguments

        recorded = registry.publish(job, arguments.event_kind(event), detail=detail, data=facts, attempt=attempt)
        if json:
            payload_line(recorded.payload)
        else:
            line(str(recorded.seq))
        if recorded.event is EventKind.STARTED and not json:
            claimed = "" if attempt is None else f" --attempt {attempt}"
            hint(
                f"next: jobdb publish {job} progress{claimed} --detail TEXT; "
                f"and at the end: jobdb complete {job}{claimed}"
            )
        if deliver:
            flush()
            deliver_job(registry, job)
