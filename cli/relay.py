"""The ``relay`` command, which delivers recorded events to MQTT brokers.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``delivery`` for the outbox and
``jobdb.mqtt``, which alone talks to brokers.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput, Refused, TimedOut

from . import output
from .delivery import open_outbox, require_mqtt_client, stop_on_signals
from .formatting import pluralize
from .inputs import check_time_limit
from .messages import print_note
from .parameters import TicketFile


def relay(
    ctx: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Exit when no event is waiting, instead of waiting for more.")
    ] = False,
    timeout_sec: Annotated[
        float | None, typer.Option("--timeout-sec", metavar="SEC", help="With --once: give up after SEC seconds.")
    ] = None,
    ticket: TicketFile = None,
    resend: Annotated[
        bool,
        typer.Option("--resend", help="With --ticket: send all events again, to a broker that has lost them."),
    ] = False,
    drain_sec: Annotated[
        float,
        typer.Option(
            "--drain-sec",
            metavar="SEC",
            help="After SIGTERM, continue to deliver waiting events for up to SEC seconds.",
            min=0,
        ),
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one object at the end.")] = False,
) -> None:
    """Deliver events to the jobs' MQTT brokers.

    Sends the events in the outbox, each job's in order, and removes each when the broker has acknowledged it. The
    relay may be killed and restarted at any time: no event is lost, and an event that the broker receives twice
    is accepted once by its subscribers. One relay at a time delivers a database; a second one waits to take over.
    After SIGTERM it delivers waiting events for up to --drain-sec seconds. With --once the exit code is 3 when
    events are left.

    \b
    Examples:
      jobdb relay
      jobdb relay --once --timeout-sec 60
      jobdb relay --ticket job.ticket
    """
    if resend and ticket is None:
        raise InvalidInput("--resend needs --ticket: a registry's subscribers read missing events from the database")
    if timeout_sec is not None and not once:
        raise InvalidInput("--timeout-sec needs --once; without it the relay runs until it is stopped")
    require_mqtt_client()
    with open_outbox(ctx, ticket, resend=resend) as outbox:
        from jobdb.mqtt import Relay

        runner = Relay(outbox, report=print_note, drain_sec=drain_sec)
        stop_on_signals(runner)
        result = runner.run(until_empty=once, timeout_sec=check_time_limit(timeout_sec, option="--timeout-sec"))
        left = outbox.count_pending()
    if as_json:
        output.print_json({"delivered": result.delivered, "waiting": left})
    else:
        print_note(f"delivered {pluralize(result.delivered, 'event')}; {left} waiting")
    if once and left:
        if not result.is_leader:
            raise Refused("another relay is delivering this outbox; let it do so, or stop it first")
        raise TimedOut(
            f"not yet delivered: {pluralize(left, 'event')}; see the messages above for the reason, and try again"
        )
