"""Delivery over MQTT: the relay, the subscriber, and tickets with which workers on other machines publish.

Called by the command line and by applications; calls the registry's engine and paho-mqtt, which is imported when the
first connection is opened. Not needed without a broker. The parts: ``outbox``, ``relay`` with ``relay_lease`` and
``broker_channel``; ``subscriber`` with ``consumer``, ``inbox``, ``batch``, ``backfill`` and ``topic_subscriptions``;
``ticket``, ``ticket_issue``, ``ticket_outbox`` and ``ticket_store``; below them are ``reconnecting``, ``connection``,
``paho_client`` and ``settings``.
"""

from .broker_discovery import subscriber_settings
from .outbox import RegistryOutbox
from .relay import Relay, RelayResult
from .settings import BrokerSettings, Environment
from .subscriber import BrokerFollower, subscribe
from .ticket import Ticket, read_ticket, write_ticket
from .ticket_issue import issue_ticket
from .ticket_outbox import TicketOutbox

__all__ = [
    "BrokerFollower",
    "BrokerSettings",
    "Environment",
    "RegistryOutbox",
    "Relay",
    "RelayResult",
    "Ticket",
    "TicketOutbox",
    "issue_ticket",
    "read_ticket",
    "subscribe",
    "subscriber_settings",
    "write_ticket",
]
