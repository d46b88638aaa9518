"""The ``subscribe`` command, which follows events from the database or from an MQTT broker.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the registry, ``following`` for a broker
and ``exec_handler`` for ``--exec``.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .completion import complete_job_ids
from .context import open_registry
from .following import BrokerAddress, FromBroker, Topics, Window, follow_broker
from .inputs import check_time_limit
from .messages import print_error, print_hint
from .parameters import Start, Subscriber
from .wait import EXIT_CODES

if TYPE_CHECKING:
    from jobdb.model import Event
    from jobdb.mqtt import BrokerFollower
    from jobdb.registry.follower import Follower


def subscribe(
    ctx: typer.Context,
    subscriber: Subscriber,
    job: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="The job; all jobs by default.", autocompletion=complete_job_ids),
    ] = None,
    exec_: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="A shell command to run for each event: the payload is on its stdin, JOBDB_JOB_ID, JOBDB_EVENT and "
            "JOBDB_SEQ are in its environment.",
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option("--retries", metavar="N", help="How often a failed command is run again.", min=0, max=1000),
    ] = 5,
    retry_pause_sec: Annotated[
        float,
        typer.Option(
            "--retry-pause-sec", metavar="SEC", help="The pause before the first retry; it doubles with each retry."
        ),
    ] = 1.0,
    start: Start = "beginning",
    timeout_sec: Annotated[
        float | None, typer.Option("--timeout-sec", metavar="SEC", help="Stop after SEC seconds in all.")
    ] = None,
    idle_timeout_sec: Annotated[
        float | None,
        typer.Option("--idle-timeout-sec", metavar="SEC", help="Stop after SEC seconds without an event."),
    ] = None,
    broker: BrokerAddress = None,
    from_broker: FromBroker = False,
    window: Window = 0,
    topic: Topics = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as an object on one line, instead of its payload.")
    ] = False,
) -> None:
    """Follow events; each is handled at least once.

    Prints each event's payload on one line, or runs the --exec command for it. What a subscriber has handled is
    stored under its name: the next run continues with the first event that was not handled. An event whose
    command fails is retried with growing pauses; if the last retry fails too, the event stays unhandled and the
    exit code is 1. The command gets this process's environment without the secrets: JOBDB_KEY, MQTT_PASSWORD,
    PGPASSWORD and a password in JOBDB_URL are removed; JOBDB_KEY_FILE and other file names stay.
    When one job is followed, the command ends with the job: exit code 0 completed, 1 error, 6 cancelled; 3 when a
    timeout was reached first.

    With --broker or --from-broker the events arrive over MQTT: each is verified, checked for replay and recorded
    in the database before it is acknowledged to the broker.

    \b
    Examples:
      jobdb subscribe 0f3a9c2d7b11 --subscriber me --timeout-sec 3600
      jobdb subscribe --subscriber mailer --start now --exec 'jq -r .detail | mail -s jobs me'
      jobdb subscribe --subscriber orchestrator --broker mqtts://broker.example
    """
    if exec_ is not None and as_json:
        raise InvalidInput("--exec passes the payload on stdin and prints nothing; leave --json out")
    pause_sec = check_time_limit(retry_pause_sec, option="--retry-pause-sec")
    limits = {
        "timeout_sec": check_time_limit(timeout_sec, option="--timeout-sec"),
        "idle_timeout_sec": check_time_limit(idle_timeout_sec, option="--idle-timeout-sec"),
    }
    over_mqtt = broker is not None or from_broker
    if not over_mqtt and (window or topic):
        raise InvalidInput("--window and --topic need --broker or --from-broker")
    with open_registry(ctx) as registry, ExitStack() as closing:
        follower: Follower | BrokerFollower
        if over_mqtt:
            follower = follow_broker(
                registry,
                job,
                subscriber=subscriber,
                address=broker,
                topics=topic,
                start=start,
                window=window,
                **limits,
            )
            closing.callback(follower.close)
        else:
            from jobdb.core import arguments

            follower = registry.subscribe(job, subscriber=subscriber, start=arguments.start(start), **limits)
        for event in follower:
            if exec_ is None:
                _print_event(event, as_json=as_json)
                continue
            from .exec_handler import run_handler

            if not run_handler(exec_, event, retries=retries, pause_sec=pause_sec or 0.0):
                print_error(
                    f"event {event.seq} of job {event.job_id} stays unhandled; fix the command and subscribe again "
                    f"as {subscriber!r}, which continues with this event"
                )
                raise typer.Exit(1)
    if follower.outcome is not None:
        print_hint(f"job {follower.outcome.job_id} has ended: {follower.outcome.status}")
        raise typer.Exit(EXIT_CODES[follower.outcome.status])


def _print_event(event: Event, *, as_json: bool) -> None:
    if as_json:
        output.print_json(event.as_dict())
    else:
        output.print_payload(event.payload)
    # The event counts as handled when the next one is requested: by then the reader must have it.
    output.flush()
