"""The ``publish`` command, which agents run once per event: what it imports is most of what it costs.

Called by the ``jobdb`` group (``commands.py``), when the command is run, and by ``finish``, which calls
``publish_event``. Calls the registry or, with a ticket, the ticket's outbox; calls ``delivery`` when an event is to be
delivered at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobdb.errors import InvalidInput

from .completion import complete_events
from .context import open_registry
from .output import flush, print_line, print_payload
from .parameters import Attempt, Data, Deliver, Detail, JobId, PayloadAsJson, TicketFile

if TYPE_CHECKING:
    from jobdb.model import Event


def publish(
    ctx: typer.Context,
    job: JobId,
    event: Annotated[
        str | None,
        typer.Argument(
            metavar="EVENT", help="The event, such as progress.", autocompletion=complete_events, show_default=False
        ),
    ] = None,
    detail: Detail = "",
    data: Data = None,
    attempt: Attempt = None,
    ticket: TicketFile = None,
    deliver: Deliver = None,
    as_json: PayloadAsJson = False,
) -> None:
    """Publish an event of a job and print its seq.

    EVENT is started, progress, permission_required, completed or error. The event gets the job's next seq, is
    signed with the job's token and, if the job has a broker, stays in the outbox until 'jobdb relay' has
    delivered it. A worker passes --attempt (or sets JOBDB_ATTEMPT), so that its events are refused once
    another worker has taken over the claim.

    On a machine without the database, pass --ticket FILE instead of JOB: the event is signed with the ticket's
    token, stored in an outbox on this machine, and delivered from there.

    \b
    Examples:
      jobdb publish 0f3a9c2d7b11 progress --detail "step 3 of 10" --data '{"pct": 30}' --attempt 1
      jobdb publish 0f3a9c2d7b11 completed --json
      jobdb publish --ticket job.ticket progress --detail "step 3 of 10"
    """
    if ticket is None:
        if event is None:
            raise InvalidInput("the event is missing: jobdb publish JOB EVENT")
        publish_event(
            ctx, job, event, detail=detail, data=data, attempt=attempt, as_json=as_json, deliver=bool(deliver)
        )
        return
    if event is not None or attempt is not None:
        raise InvalidInput("a ticket determines the job and the attempt: jobdb publish --ticket FILE EVENT")
    # With a ticket the first argument is the event: the ticket names the job.
    _publish_with_ticket(ticket, job, detail=detail, data=data, as_json=as_json, deliver=deliver is not False)


def publish_event(
    ctx: typer.Context,
    job: str,
    event: str,
    *,
    detail: str,
    data: str | None,
    attempt: int | None,
    as_json: bool,
    deliver: bool = False,
) -> None:
    """Publish an event in the registry, print its seq or payload, and deliver it at once if requested."""
    parsed_data = _parse_data(data)
    from jobdb.model import EventKind

    if deliver:
        from .delivery import deliver_job, require_mqtt_client

        require_mqtt_client()
    with open_registry(ctx) as registry:
        from jobdb.core import arguments

        recorded = registry.publish(job, arguments.event_kind(event), detail=detail, data=parsed_data, attempt=attempt)
        _print_recorded(recorded, as_json=as_json)
        if recorded.event is EventKind.STARTED and not as_json:
            _print_next_step(ctx, job, attempt)
        if deliver:
            flush()
            deliver_job(registry, job)


def _publish_with_ticket(file: str, event: str, *, detail: str, data: str | None, as_json: bool, deliver: bool) -> None:
    """Publish an event in the ticket's own outbox, print its seq or payload, and deliver that outbox if requested."""
    from pathlib import Path

    from jobdb.mqtt import TicketOutbox, read_ticket

    from .delivery import deliver_ticket_outbox, require_mqtt_client

    parsed_data = _parse_data(data)
    job_ticket = read_ticket(Path(file))
    if deliver:
        require_mqtt_client()
    with TicketOutbox.open(job_ticket) as outbox:
        _print_recorded(outbox.publish(event, detail=detail, data=parsed_data), as_json=as_json)
        flush()
        left = deliver_ticket_outbox(outbox) if deliver else outbox.count_pending()
    if left:
        from .formatting import pluralize
        from .messages import print_note

        count = pluralize(left, "event")
        print_note(
            f"not yet delivered: {count} of job {job_ticket.job_id}; 'jobdb relay --ticket {file}' delivers the rest"
        )


def _parse_data(data: str | None) -> dict[str, Any]:
    if data is None:
        return {}
    from .inputs import parse_json_object

    return parse_json_object(data, option="--data")


def _print_recorded(event: Event, *, as_json: bool) -> None:
    if as_json:
        print_payload(event.payload)
    else:
        print_line(str(event.seq))


def _print_next_step(ctx: typer.Context, job: str, attempt: int | None) -> None:
    from .messages import print_hint

    option = "" if attempt is None else f" --attempt {attempt}"
    print_hint(
        f"next: jobdb publish {job} progress{option} --detail TEXT; and at the end: jobdb complete {job}{option}", ctx
    )
