"""Programs that a test kills: ``python -m tests.support.mqtt.worker_program ROLE …``.

A subscriber logs each step before the next: ``action`` (accepted or handled), ``job_id`` and ``seq``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from jobdb import Registry
from jobdb.mqtt import (
    BrokerSettings,
    Environment,
    RegistryOutbox,
    Relay,
    TicketOutbox,
    read_ticket,
    subscribe,
)
from tests.support.ack_log import AckLog
from tests.support.keys import vault

LEASE_SEC = 1.0
GRACE_SEC = 4.0


def _report(text: str) -> None:
    sys.stderr.write(f"{time.monotonic():.3f} {os.getpid()} {text}\n")


def _registry(database: str) -> Registry:
    return Registry.open(database, vault=vault())


def relay(database: str) -> None:
    """Deliver a registry's outbox until killed."""
    with _registry(database) as registry:
        outbox = RegistryOutbox(registry.engine, environment=Environment.read({}), report=_report)
        Relay(outbox, report=_report, lease_sec=LEASE_SEC).run()


def ticket_relay(ticket: str, state: str) -> None:
    """Deliver a ticket's outbox until killed."""
    with TicketOutbox.open(read_ticket(Path(ticket)), path=Path(state)) as outbox:
        Relay(outbox, report=_report, lease_sec=LEASE_SEC).run()


def ticket_publisher(tickets: str, state: str, events: str) -> None:
    """Publish ``events`` events with each ticket of a folder, the last one ``completed``; continue after a restart."""
    outboxes = [
        TicketOutbox.open(read_ticket(path), path=Path(state)) for path in sorted(Path(tickets).glob("*.ticket"))
    ]
    for _ in range(int(events)):
        for outbox in outboxes:
            seq = outbox.next_seq()
            if seq < int(events):
                outbox.publish("progress", detail=f"step {seq}")
            elif seq == int(events):
                outbox.publish("completed")


def publish_from_ticket(ticket: str, state: str, events: str) -> None:
    """Publish ``events`` events, while other processes use the same ticket."""
    with TicketOutbox.open(read_ticket(Path(ticket)), path=Path(state)) as outbox:
        for _ in range(int(events)):
            outbox.publish("progress", detail=str(os.getpid()))


def subscriber(database: str, port: str, name: str, log: str) -> None:
    """Follow all jobs over the broker until killed."""
    ack_log = AckLog(Path(log))
    settings = BrokerSettings("127.0.0.1", int(port))

    with (
        _registry(database) as registry,
        subscribe(
            registry,
            subscriber=name,
            settings=settings,
            grace_sec=GRACE_SEC,
            report=_report,
            on_accepted=lambda answer: ack_log.write(action="accepted", job_id=answer.job_id, seq=answer.seq),
        ) as follower,
    ):
        for event in follower:
            ack_log.write(action="handled", job_id=event.job_id, seq=event.seq)


if __name__ == "__main__":
    roles = {
        "relay": relay,
        "ticket-relay": ticket_relay,
        "ticket-publisher": ticket_publisher,
        "ticket-shouter": publish_from_ticket,
        "subscriber": subscriber,
    }
    roles[sys.argv[1]](*sys.argv[2:])
