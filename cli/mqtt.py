"""What commands do with an MQTT broker: run a relay until something is delivered, follow events over a broker.

Called by relay, publish, ticket and subscribe; calls ``jobdb.mqtt``, which is imported only when it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobdb.errors import InvalidInput, MovedOrCopied

from . import inputs, output
from .context import open_registry

if TYPE_CHECKING:
    from jobdb.mqtt import BrokerFollower, Relay
    from jobdb.registry import Registry

DELIVERY_LIMIT_SEC = 5.0

BrokerAddress = Annotated[
    str | None,
    typer.Option(
        "--broker",
        metavar="ADDRESS",
        help="Take the events from an MQTT broker: HOST[:PORT] or mqtts://USER@HOST[:PORT]; passwords and "
        "certificates come from the jobs' records and MQTT_PASSWORD, MQTT_CA_CERTS, ….",
    ),
]

FromBroker = Annotated[
    bool,
    typer.Option("--from-broker", help="The same with the broker of the job, of MQTT_BROKER, or of all living jobs."),
]

Window = Annotated[
    int,
    typer.Option(
        "--window",
        metavar="N",
        help="With a broker: accept an event that was skipped and is at most N seqs behind, once.",
        min=0,
        max=1_000_000,
    ),
]

Topics = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="FILTER",
        help="With a broker, for all jobs: a topic filter instead of jobdb/jobs/+/events; may be repeated.",
    ),
]


def deliver_job(registry: Registry, job_id: str, *, limit_sec: float = DELIVERY_LIMIT_SEC) -> None:
    """Hands a job's waiting events to its broker, as far as that works within the limit; says what is left."""
    from jobdb.mqtt import RegistryOutbox, Relay

    try:
        outbox = RegistryOutbox(registry.engine, job_id=job_id, report=output.note)
    except MovedOrCopied as refusal:
        # The event is recorded: an answer that it is not would make its agent say it again.
        output.warn(f"the events of job {job_id} wait: {refusal}")
        return
    done = Relay(outbox, report=_discard_report).run(until_empty=True, one_try=True, timeout_sec=limit_sec)
    left = outbox.count_pending()
    if left and not done.is_leader:
        output.note(f"{left} events of job {job_id} wait; the relay that runs delivers them")
    elif left:
        output.note(f"{left} events of job {job_id} wait for its broker; 'jobdb relay' delivers them")


def require_mqtt_client() -> None:
    """Refuses before anything is recorded where the MQTT client is missing: the event would be there, the answer no."""
    from jobdb.mqtt.paho_client import import_paho

    import_paho()


def publish_with_ticket(
    file: str,
    event: str,
    *,
    detail: str,
    data: str | None,
    json: bool,
    deliver: bool,
    limit_sec: float = DELIVERY_LIMIT_SEC,
) -> None:
    """Records an event in the ticket's own outbox, prints its seq or payload, and delivers what waits there."""
    from jobdb.mqtt import TicketOutbox, read_ticket

    facts = inputs.json_object(data, option="--data")
    ticket = read_ticket(Path(file))
    if deliver:
        require_mqtt_client()
    with TicketOutbox.open(ticket) as outbox:
        recorded = outbox.publish(event, detail=detail, data=facts)
        if json:
            output.payload_line(recorded.payload)
        else:
            output.line(str(recorded.seq))
        output.flush()
        if deliver:
            from jobdb.mqtt import Relay

            Relay(outbox, report=_discard_report).run(until_empty=True, one_try=True, timeout_sec=limit_sec)
        left = outbox.count_pending()
    if left:
        output.note(f"{left} events of job {ticket.job_id} wait here; 'jobdb relay --ticket {file}' delivers them")


def follow_broker(
    registry: Registry,
    job_id: str | None,
    *,
    subscriber: str,
    address: str | None,
    topics: list[str] | None,
    start: str,
    window: int,
    timeout_sec: float | None,
    idle_timeout_sec: float | None,
) -> BrokerFollower:
    """The iterator over a broker's events, for ``subscribe --broker`` and ``--from-broker``."""
    from jobdb.mqtt import subscribe, subscriber_settings
    from jobdb.mqtt.subscriber import DEFAULT_FILTERS

    if topics and job_id is not None:
        raise InvalidInput("--topic is for following all jobs; a job's topic is in its record: leave it out")
    return subscribe(
        registry,
        job_id,
        subscriber=subscriber,
        settings=subscriber_settings(registry, job_id, address=address),
        filters=topics or DEFAULT_FILTERS,
        start=start,
        window=window,
        timeout_sec=timeout_sec,
        idle_timeout_sec=idle_timeout_sec,
        report=output.note,
    )


def stop_on_signals(relay: Relay) -> None:
    """SIGTERM and an interrupt let the relay finish what it has begun; the second one ends it as it is."""
    import signal

    def stop(number: int, _frame: Any) -> None:
        relay.stop()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def open_outbox(ctx: typer.Context, file: str | None) -> Any:
    """The outbox that a relay delivers, in a context that closes what it needs."""
    from contextlib import contextmanager

    from jobdb.mqtt import RegistryOutbox, TicketOutbox, read_ticket

    @contextmanager
    def opened() -> Any:
        if file is not None:
            with TicketOutbox.open(read_ticket(Path(file))) as outbox:
                yield outbox
        else:
            with open_registry(ctx, checkpoint=True) as registry:
                yield RegistryOutbox(registry.engine, report=output.note)

    return opened()


def _discard_report(_text: str) -> None:
    """A short delivery says at its end what is left; how it went on the way is of no interest."""
