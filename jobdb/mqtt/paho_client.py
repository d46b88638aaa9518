"""Factories for paho-mqtt's objects: the client with its TLS context, and the properties of packets.

Called by :mod:`.connection`, the only user of the client. paho is imported when the first connection is opened, so that
importing ``jobdb.mqtt`` does not require it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput

if TYPE_CHECKING:
    from paho.mqtt.client import Client

    from .settings import BrokerSettings

MQTT_5, MQTT_311 = 5, 4


class ConnectionFailed(Exception):
    """Raised when the broker cannot be reached or refuses us; never leaves this package.

    Attributes:
        other_version: True if the broker may speak another version of MQTT.
    """

    def __init__(self, reason: str, *, other_version: bool = False) -> None:
        super().__init__(reason)
        self.other_version = other_version


def import_paho() -> Any:
    """Return paho's client module.

    Raises:
        InvalidInput: paho-mqtt is not installed, or older than 2.
    """
    try:
        import paho.mqtt.client as paho
    except ImportError:
        raise InvalidInput(
            "MQTT needs the package paho-mqtt, which is not installed", advice="pip install 'jobdb[mqtt]'"
        ) from None
    if not hasattr(paho, "CallbackAPIVersion"):
        raise InvalidInput("paho-mqtt is older than 2.0", advice="install a newer one: pip install 'jobdb[mqtt]'")
    return paho


def make_client(
    settings: BrokerSettings, client_id: str, *, version: int, clean_session: bool, connect_timeout_sec: float
) -> Client:
    """Return a client that is not yet connected and neither reconnects nor acknowledges by itself.

    Raises:
        ConnectionFailed: the certificate files cannot be used.
    """
    paho = import_paho()
    client: Client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=paho.MQTTv5 if version == MQTT_5 else paho.MQTTv311,
        clean_session=None if version == MQTT_5 else clean_session,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.max_inflight_messages = 0  # unlimited: the relay enforces the broker's limit
    client.connect_timeout = connect_timeout_sec
    if settings.username is not None or settings.password is not None:
        client.username_pw_set(settings.username or "", settings.password)
    if settings.tls:
        client.tls_set_context(_tls_context(settings))
    return client


def connect_properties(*, session_sec: int, receive_maximum: int, max_packet_bytes: int) -> Any:
    """Return the properties of an MQTT 5 CONNECT."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_sec
    properties.ReceiveMaximum = receive_maximum
    properties.MaximumPacketSize = max_packet_bytes
    return properties


def forget_session_properties() -> Any:
    """Return the properties of an MQTT 5 DISCONNECT that ends the session."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    return properties


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    """Return a context that verifies the broker's certificate and name, with our own certificate if configured."""
    for path in (settings.ca_certs, settings.certfile, settings.keyfile):
        if path is not None:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ConnectionFailed(f"cannot read {path}: {error.strerror}") from error
    try:
        context = ssl.create_default_context(cafile=settings.ca_certs)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certfile is not None:
            context.load_cert_chain(settings.certfile, settings.keyfile)
    except ssl.SSLError as error:
        raise ConnectionFailed(f"the certificate files cannot be used: {error.reason or error}") from error
    return context
