"""The options with which subscribe follows events over MQTT, and the follower that they select.

Called by subscribe; calls ``jobdb.mqtt``, which is imported only when it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from .messages import print_note

if TYPE_CHECKING:
    from jobdb.mqtt import BrokerFollower
    from jobdb.registry import Registry

BrokerAddress = Annotated[
    str | None,
    typer.Option(
        "--broker",
        metavar="ADDRESS",
        help="Receive the events from an MQTT broker: HOST[:PORT] or mqtts://USER@HOST[:PORT]. Passwords and "
        "certificates come from the jobs' records and MQTT_PASSWORD, MQTT_CA_CERTS, ….",
    ),
]

FromBroker = Annotated[
    bool,
    typer.Option(
        "--from-broker",
        help="Like --broker, with the broker of the job, of MQTT_BROKER, or of all jobs that have not ended.",
    ),
]

Window = Annotated[
    int,
    typer.Option(
        "--window",
        metavar="N",
        help="With a broker: accept a skipped event that arrives up to N seqs late, once.",
        min=0,
        max=1_000_000,
    ),
]

Topics = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="FILTER",
        help="With a broker and all jobs: a topic filter instead of jobdb/jobs/+/events; may be repeated.",
    ),
]


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
    """Return an iterator over the events that arrive from a broker, for ``--broker`` and ``--from-broker``."""
    from jobdb.mqtt import subscribe, subscriber_settings
    from jobdb.mqtt.subscriber import DEFAULT_FILTERS

    if topics and job_id is not None:
        raise InvalidInput("--topic is for following all jobs; leave it out: a job's topic is in its record")
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
        report=print_note,
    )
