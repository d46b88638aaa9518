"""The command that carries events to the brokers: relay."""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput, Refused, TimedOut

from . import output
from .mqtt import open_outbox, require_mqtt_client, stop_on_signals
from .parameters import TicketFile
from .wait import check_time_limit


def relay(
    ctx: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="End when nothing waits any more, instead of waiting for more.")
    ] = False,
    timeout_sec: Annotated[
        float | None, typer.Option("--timeout-sec", metavar="SEC", help="With --once: give up after so long.")
    ] = None,
    ticket: TicketFile = None,
    resend: Annotated[
        bool,
        typer.Option(
            "--resend", help="With --ticket: send everything again, to a broker that has lost what it had taken."
        ),
    ] = False,
    drain_sec: Annotated[
        float,
        typer.Option("--drain-sec", metavar="SEC", help="How long to go on with what waits after SIGTERM.", min=0),
    ] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print at the end what was done, as one object.")] = False,
) -> None:
    """Deliver events to the jobs' MQTT brokers.

    Sends what waits in the outbox, each job's events in order, and takes it out when the broker has
    acknowledged it. May be killed and started again at any time: nothing is lost, and what a broker gets
    twice the subscribers accept once. One relay at a time delivers a database; a second one waits to take
    over. SIGTERM lets it finish what waits, for --drain-sec at most. With --once the exit code is 3 when
    something is left.

    \b
    Examples:
      jobdb relay
      jobdb relay --once --timeout-sec 60
      jobdb relay --ticket job.ticket
    """
    if resend and ticket is None:
        raise InvalidInput("--resend is for --ticket: a registry's subscribers take from the database what is missing")
    if timeout_sec is not None and not once:
        raise InvalidInput("--timeout-sec is for --once; without it the relay runs until it is stopped")
    require_mqtt_client()
    with open_outbox(ctx, ticket) as outbox:
        from jobdb.mqtt import Relay

        if resend:
            outbox.resend()
        runner = Relay(outbox, report=output.note, drain_sec=drain_sec)
        stop_on_signals(runner)
        done = runner.run(until_empty=once, timeout_sec=check_time_limit(timeout_sec, option="--timeout-sec"))
        left = outbox.count_pending()
    if json:
        output.json_line({"delivered": done.delivered, "waiting": left})
    else:
        output.note(f"delivered {done.delivered} events; {left} wait")
    if once and left:
        if not done.is_leader:
            raise Refused("another relay delivers this outbox; leave it to that one, or stop it first")
        raise TimedOut(f"{left} events still wait for their broker; look at what was said above, and try again")
