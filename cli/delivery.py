"""Runs the MQTT relay for a command: until an event is delivered, or until it is stopped.

Called by publish and relay; calls ``jobdb.mqtt``, which is imported only when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from jobdb.errors import MovedOrCopied

from .context import open_registry
from .formatting import pluralize
from .messages import print_note, print_warning

if TYPE_CHECKING:
    from jobdb.mqtt import RegistryOutbox, Relay, RelayResult, TicketOutbox
    from jobdb.registry import Registry

DELIVERY_LIMIT_SEC = 5.0


def require_mqtt_client() -> None:
    """Check that the MQTT client is installed, before anything is recorded.

    Raises:
        Unavailable: it is not. Later would be too late: the event would be recorded although the command failed.
    """
    from jobdb.mqtt.paho_client import import_paho

    import_paho()


def deliver_job(registry: Registry, job_id: str) -> None:
    """Deliver a job's waiting events to its broker, as far as possible within the limit; report how many are left."""
    from jobdb.mqtt import RegistryOutbox

    try:
        outbox = RegistryOutbox(registry.engine, job_id=job_id, report=print_note)
    except MovedOrCopied as refusal:
        # The event is recorded: an error would make its agent publish it again.
        print_warning(f"the events of job {job_id} are waiting: {refusal.for_command_line()}")
        return
    delivered = _deliver_once(outbox)
    left = outbox.count_pending()
    if left and not delivered.is_leader:
        print_note(
            f"not yet delivered: {pluralize(left, 'event')} of job {job_id}; the running relay delivers the rest"
        )
    elif left:
        print_note(f"not yet delivered: {pluralize(left, 'event')} of job {job_id}; 'jobdb relay' delivers the rest")


def deliver_ticket_outbox(outbox: TicketOutbox) -> int:
    """Deliver a ticket's waiting events, as far as possible within the limit; return how many are left."""
    _deliver_once(outbox)
    return outbox.count_pending()


def _deliver_once(outbox: RegistryOutbox | TicketOutbox) -> RelayResult:
    from jobdb.mqtt import Relay

    relay = Relay(outbox, report=_discard_report)
    return relay.run(until_empty=True, one_try=True, timeout_sec=DELIVERY_LIMIT_SEC)


def _discard_report(_text: str) -> None:
    """Ignore what a short delivery reports on the way: its result is reported at its end."""


@contextmanager
def open_outbox(
    ctx: typer.Context, ticket_file: str | None, *, resend: bool = False
) -> Iterator[RegistryOutbox | TicketOutbox]:
    """Open the outbox of a ticket, or of the registry without one, for the duration of the block."""
    from jobdb.mqtt import RegistryOutbox, TicketOutbox, read_ticket

    if ticket_file is not None:
        with TicketOutbox.open(read_ticket(Path(ticket_file))) as outbox:
            if resend:
                outbox.resend()
            yield outbox
    else:
        with open_registry(ctx, checkpoint=True) as registry:
            yield RegistryOutbox(registry.engine, report=print_note)


def stop_on_signals(relay: Relay) -> None:
    """Make SIGTERM and an interrupt stop the relay in an orderly way, and a second one end it at once."""
    import signal

    def stop(number: int, _frame: object) -> None:
        relay.stop()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
