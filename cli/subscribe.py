"""The command that follows events from the database: subscribe."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .completion import complete_job_ids
from .context import open_registry
from .mqtt import BrokerAddress, FromBroker, Topics, Window
from .parameters import Start, Subscriber
from .wait import EXIT_CODES, check_time_limit

if TYPE_CHECKING:
    from jobdb.mqtt import BrokerFollower
    from jobdb.registry.follower import Follower


def subscribe(
    ctx: typer.Context,
    subscriber: Subscriber,
    job: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="The job; all jobs otherwise.", autocompletion=complete_job_ids),
    ] = None,
    exec_: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="A shell command to run for each event: its payload on stdin, JOBDB_JOB_ID, JOBDB_EVENT and "
            "JOBDB_SEQ in the environment.",
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option("--retries", metavar="N", help="How often a failing command is tried again.", min=0, max=1000),
    ] = 5,
    retry_pause_sec: Annotated[
        float,
        typer.Option(
            "--retry-pause-sec", metavar="SEC", help="The pause before the first repetition; then twice as long each."
        ),
    ] = 1.0,
    start: Start = "beginning",
    timeout_sec: Annotated[
        float | None, typer.Option("--timeout-sec", metavar="SEC", help="Give up after so long in all.")
    ] = None,
    idle_timeout_sec: Annotated[
        float | None, typer.Option("--idle-timeout-sec", metavar="SEC", help="Give up after so long without an event.")
    ] = None,
    broker: BrokerAddress = None,
    from_broker: FromBroker = False,
    window: Window = 0,
    topic: Topics = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print each event as an object on a line, instead of its payload.")
    ] = False,
) -> None:
    """Follow events, each handled at least once.

    Prints each event's payload on a line, or runs --exec for it. What a subscriber has handled is kept under
    its name: started again, it goes on with the first event that it had not handled. An event whose command
    fails is tried again with growing pauses; if it still fails, the event stays unhandled and the exit code
    is 1. The command gets this one's environment without the secrets in it: JOBDB_KEY, MQTT_PASSWORD,
    PGPASSWORD and a password in JOBDB_URL are left out; JOBDB_KEY_FILE and other names of files stay.
    Following one job ends with the job: 0 completed, 1 error, 6 cancelled; 3 when the time was over.

    With --broker or --from-broker the events come over MQTT: each is verified, checked for replay and recorded
    in the database before the broker may forget it.

    \b
    Examples:
      jobdb subscribe 0f3a9c2d7b11 --subscriber me --timeout-sec 3600
      jobdb subscribe --subscriber mailer --start now --exec 'jq -r .detail | mail -s jobs me'
      jobdb subscribe --subscriber orchestrator --broker mqtts://broker.example
    """
    if exec_ is not None and json:
        raise InvalidInput("--exec gets the payload on stdin and nothing is printed; leave --json out")
    pause_sec = check_time_limit(retry_pause_sec, option="--retry-pause-sec")
    limits = {
        "timeout_sec": check_time_limit(timeout_sec, option="--timeout-sec"),
        "idle_timeout_sec": check_time_limit(idle_timeout_sec, option="--idle-timeout-sec"),
    }
    over_mqtt = broker is not None or from_broker
    if not over_mqtt and (window or topic):
        raise InvalidInput("--window and --topic go with --broker or --from-broker")
    with open_registry(ctx) as registry, ExitStack() as closing:
        follower: Follower | BrokerFollower
        if over_mqtt:
            from .mqtt import follow_broker

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
                if json:
                    output.json_line(event.as_dict())
                else:
                    output.payload_line(event.payload)
                # The event counts as handled when the next one is asked for: by then the reader must have it.
                output.flush()
                continue
            from .exec_handler import run_handler

            if not run_handler(exec_, event, retries=retries, pause_sec=pause_sec or 0.0):
                output.print_error(
                    f"event {event.seq} of job {event.job_id} stays unhandled; mend the command and subscribe again "
                    f"as {subscriber!r}: it begins there"
                )
                raise typer.Exit(1)
    if follower.outcome is not None:
        output.hint(f"job {follower.outcome.job_id} has ended: {follower.outcome.status}")
        raise typer.Exit(EXIT_CODES[follower.outcome.status])
