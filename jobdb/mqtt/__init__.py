"""Events over an MQTT broker: what delivers the outbox (relay), what accepts from the broker (subscriber), and tickets
for workers on other machines.

Called by the command line and by programs; calls the registry's engine and, in ``connection`` alone, paho-mqtt, which
is imported when the first connection is made. Nothing here is needed where there is no broker.
"""

from .outbox import RegistryOutbox
from .relay import Relay, RelayResult
from .settings import BrokerSettings, Environment
from .subscriber import BrokerFollower, subscribe, subscriber_settings
from .ticket import Ticket, issue_ticket, read_ticket, write_ticket
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
