"""The ``publish`` command, which agents run once per event: what it imports is most of what it costs.

Called by the ``jobdb`` group (``commands.py``), when the command is run, and by ``finish``, which calls
``publish_event``. Calls the registry or, with a ticket, the ticket's outbox; calls ``delivery`` when an event is to be
delivered at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobdb.errors import InvalidInput

from .claimed_job import JOB_ID_VARIABLE, job_of_environment, resolve_attempt
from .completion import complete_events, complete_jobs_and_events
from .context import open_registry
from .output import flush, print_line, print_payload
from .parameters import Attempt, Data, Deliver, Detail, PayloadAsJson, TicketFile

if TYPE_CHECKING:
    from jobdb.model import Event


def publish(
    ctx: typer.Context,
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="The job's id. Default: $JOBDB_JOB_ID.",
            autocompletion=complete_jobs_and_events,
            show_default=False,
        ),
    ] = None,
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
    delivered it.

    A job that is held under a lease demands the claim's number, --attempt: events of a worker whose claim was
    taken over are refused. With JOBDB_JOB_ID and JOBDB_ATTEMPT set, as 'claim --export' prints them, one
    argument is the EVENT of that job. (A job whose id is an event's name is named with two arguments.)

    On a machine without the database, pass --ticket FILE instead of JOB: the event is signed with the ticket's
    token, stored in an outbox on this machine, and delivered from there.

    \b
    Examples:
      jobdb publish 0f3a9c2d7b11 progress --detail "step 3 of 10" --data '{"pct": 30}' --attempt 1
      jobdb publish started
      jobdb publish --ticket job.ticket progress --detail "step 3 of 10"
    """
    if ticket is None:
        job, event = _job_and_event(job, event)
        attempt = resolve_attempt(job, attempt)
        publish_event(
            ctx, job, event, detail=detail, data=data, attempt=attempt, as_json=as_json, deliver=bool(deliver)
        )
        return
    # With a ticket the first argument is the event: the ticket names the job, whatever the environment says.
    if job is None or event is not None or attempt is not None:
        raise InvalidInput("a ticket determines the job and the attempt: jobdb publish --ticket FILE EVENT")
    _publish_with_ticket(ticket, job, detail=detail, data=data, as_json=as_json, deliver=deliver is not False)


def _job_and_event(first: str | None, second: str | None) -> tuple[str, str]:
    """Return the job and the event that the arguments name; of one argument, an event of the environment's job.

    Raises:
        InvalidInput: one of them is missing.
    """
    if first is not None and second is not None:
        return first, second
    from jobdb.model import EventKind

    job = job_of_environment()
    if first is None or all(first != kind for kind in EventKind):
        known = "" if first is None or job is None else f" ({first!r:.40} is none of job {job})"
        raise InvalidInput(f"the event is missing{known}: jobdb publish JOB EVENT")
    if job is None:
        raise InvalidInput(
            f"the job is missing: jobdb publish JOB {first}; or set {JOB_ID_VARIABLE}, as the output of "
            "'jobdb claim --export' does"
        )
    return job, first


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
