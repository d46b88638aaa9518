"""An MQTT connection, from CONNECT to its end: a thin, typed wrapper around paho-mqtt.

Called by :mod:`.reconnecting`, which alone opens one; calls ``paho_client``, never a database. A connection is used
once. paho would reconnect by itself and resend the messages in flight in its own order and with its own message ids;
here the database is authoritative, so a lost connection is discarded with everything in it, and the next one begins
from the outbox or from the broker's session.

paho's network loop runs in our own thread, so that its end, for whatever reason, is always noticed; a registered write
callback keeps ``publish`` from writing to the socket in the caller's thread at the same time.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.protocol import MAX_PAYLOAD_BYTES
from ..system.interrupt_safe_flag import Flag
from .paho_client import (
    MQTT_5,
    MQTT_311,
    ConnectionFailed,
    connect_properties,
    forget_session_properties,
    make_client,
)
from .settings import BrokerSettings

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

KEEPALIVE_SEC = 30
CONNECT_TIMEOUT_SEC = 10.0
DISCONNECT_TIMEOUT_SEC = 5.0
_DISCONNECT_IDLE_SEC = 0.5
_POLL_INTERVAL_SEC = 0.05
CONNACK_TIMEOUT_SEC = {MQTT_5: 5.0, MQTT_311: 10.0}
"""The time to wait for the answer to CONNECT, in seconds, by version.

An MQTT 3.1.1 broker may take an MQTT 5 CONNECT for an incomplete one and never answer."""
MAX_IN_FLIGHT = 500
MAX_PACKET_BYTES = MAX_PAYLOAD_BYTES + 65_536
"""The largest packet that the broker may send (MQTT 5): no event with its topic and properties is larger."""
OVERSIZED_PAYLOAD = bytes(MAX_PAYLOAD_BYTES + 1)
"""The replacement for the payload of a message that is too large to be an event."""
_SESSION_TAKEN_OVER = 0x8E
_FIRST_FAILURE_CODE = 0x80


@dataclass(frozen=True, slots=True)
class Message:
    """A received message, which can be acknowledged only through the connection that it arrived on."""

    connection: Connection
    mid: int
    topic: str
    payload: bytes = field(repr=False)
    retained: bool
    qos: int

    def acknowledge(self) -> None:
        """Acknowledge it, so that the broker does not send it again. Has no effect if the connection has ended."""
        if self.qos == 1:
            self.connection.acknowledge(self.mid)


class Connection:
    """An MQTT connection.

    Args:
        settings: the broker.
        client_id: our client id at the broker.
        version: MQTT_5 or MQTT_311.
        session_sec: how long the broker keeps our session after a disconnect, in seconds; 0: a clean start.
        on_message: called in the network thread for each message. Nothing else is read while it runs, and the
            connection ends if it raises.
        on_acknowledged: called in the network thread with a message id and the broker's reason for refusing the
            message, or None if it was accepted.
        on_end: called in the network thread when the connection has ended.

    Attributes:
        session_present: True if the broker still had our session.
        max_in_flight: the maximum number of unacknowledged messages that the broker accepts.
        max_packet_bytes: the largest packet that the broker accepts, in bytes; None: no limit.
        retain_available: True if the broker accepts retained messages.
        ended: set when the connection has ended, after the two attributes below.
        close_reason: why it has ended; empty before that.
        session_taken_over: True if the broker ended it because another client has connected with our id.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        *,
        version: int,
        session_sec: int,
        on_message: Callable[[Message], None] | None,
        on_acknowledged: Callable[[int, str | None], None] | None,
        on_end: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.version = version
        self.session_present = False
        self.max_in_flight = MAX_IN_FLIGHT
        self.max_packet_bytes: int | None = None
        self.retain_available = True
        self.ended = Flag()
        self.close_reason = ""
        self.session_taken_over = False
        self._session_sec = session_sec
        self._on_message = on_message
        self._on_acknowledged = on_acknowledged
        self._on_end = on_end
        self._disconnecting = False
        self._connect_done = Flag()
        self._connect_error: ConnectionFailed | None = None
        self._subscribed: dict[int, list[Any]] = {}
        self._suback = threading.Condition()
        self._client = self._make_client(client_id)
        self._thread = threading.Thread(target=self._run, name=f"mqtt {settings.host}", daemon=True)

    # -- opening

    def _make_client(self, client_id: str) -> Client:
        client = make_client(
            self.settings,
            client_id,
            version=self.version,
            clean_session=self._session_sec == 0,
            connect_timeout_sec=CONNECT_TIMEOUT_SEC,
        )
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._acknowledged
        client.on_subscribe = self._subscription_answered
        client.on_socket_register_write = lambda *_: None
        client.on_socket_close = self._linger
        return client

    def open(self) -> None:
        """Connect, and return once the broker has accepted the connection.

        Raises:
            ConnectionFailed: the broker cannot be reached, its certificate does not verify, or it refuses us.
        """
        try:
            if self.version == MQTT_5:
                self._client.connect(
                    self.settings.host,
                    self.settings.port,
                    KEEPALIVE_SEC,
                    clean_start=self._session_sec == 0,
                    properties=connect_properties(
                        session_sec=self._session_sec,
                        receive_maximum=MAX_IN_FLIGHT,
                        max_packet_bytes=MAX_PACKET_BYTES,
                    ),
                )
            else:
                self._client.connect(self.settings.host, self.settings.port, KEEPALIVE_SEC)
        except ssl.SSLError as error:
            verification = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
            reason = verification or error.reason or "the TLS handshake failed"
            raise ConnectionFailed(f"TLS: {reason}") from error
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            raise ConnectionFailed(reason) from error
        self._thread.start()
        connack_timeout_sec = CONNACK_TIMEOUT_SEC[self.version]
        answered = self._connect_done.wait(connack_timeout_sec)
        if answered and self._connect_error is None and not self.ended.is_set():
            return
        self.close()
        if self._connect_error is not None:
            raise self._connect_error
        if answered:
            raise ConnectionFailed("it closed the connection before it answered", other_version=True)
        raise ConnectionFailed(
            f"it did not answer within {connack_timeout_sec:g} s", other_version=self.version == MQTT_5
        )

    def _run(self) -> None:
        """Run paho's loop until the connection has ended, in the network thread."""
        close_reason = ""
        try:
            while self._client.loop(1.0) == 0:
                pass
        except Exception as error:  # paho raises what its sockets and parsers raise
            close_reason = f"{type(error).__name__}: {error}"
        finally:
            self.close_reason = self.close_reason or close_reason or "the connection broke"
            self.ended.set()
            self._connect_done.set()
            with self._suback:
                self._suback.notify_all()
            self._on_end()

    # -- paho's callbacks, all in the network thread

    def _connected(self, _client: Any, _data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            name = str(reason)
            self._connect_error = ConnectionFailed(
                f"it refuses us: {name}", other_version=name == "Unsupported protocol version"
            )
        else:
            self.session_present = bool(flags.session_present)
            limit = getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT)
            self.max_in_flight = max(1, min(MAX_IN_FLIGHT, limit))
            self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
            self.retain_available = bool(getattr(properties, "RetainAvailable", 1))
            if getattr(properties, "MaximumQoS", 1) < 1:
                self._connect_error = ConnectionFailed("it offers no QoS 1, without which nothing is acknowledged")
        self._connect_done.set()

    def _disconnected(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self.close_reason = f"the broker disconnected: {reason}"
            self.session_taken_over = reason.value == _SESSION_TAKEN_OVER

    def _linger(self, _client: Any, _data: Any, ending: Any) -> None:
        """Give the broker time to read our DISCONNECT before paho closes the socket.

        A socket that is closed while the broker still writes to it (acknowledgements, messages) answers with a reset,
        and a broker that receives a reset discards the data that it has not yet read. Most brokers close the connection
        as soon as they have read the DISCONNECT; one that leaves the closing to us sends nothing more.
        """
        if not self._disconnecting:
            return
        deadline = time.monotonic() + DISCONNECT_TIMEOUT_SEC
        try:
            ending.shutdown(socket.SHUT_WR)
            while (remaining := deadline - time.monotonic()) > 0:
                ending.settimeout(min(remaining, _DISCONNECT_IDLE_SEC))
                if not ending.recv(65_536):
                    return
        except OSError:
            pass  # the connection has ended either way

    def _received(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        if self._on_message is None:
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "\ufffd"
        payload = OVERSIZED_PAYLOAD if len(message.payload) > MAX_PAYLOAD_BYTES else bytes(message.payload)
        self._on_message(Message(self, message.mid, topic, payload, message.retain, message.qos))

    def _acknowledged(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        if self._on_acknowledged is not None:
            self._on_acknowledged(mid, str(reason) if reason.is_failure else None)

    def _subscription_answered(self, _client: Any, _data: Any, mid: int, reasons: list[Any], _properties: Any) -> None:
        with self._suback:
            self._subscribed[mid] = reasons
            self._suback.notify_all()

    # -- use

    def publish(self, topic: str, payload: str, *, retain: bool) -> int:
        """Pass a message to the network thread, at QoS 1; return its message id."""
        return self._client.publish(topic, payload.encode(), qos=1, retain=retain and self.retain_available).mid

    def acknowledge(self, mid: int) -> None:
        """Send the PUBACK of a message that arrived on this connection."""
        if not self.ended.is_set():
            self._client.ack(mid, 1)

    def subscribe(self, filters: Sequence[str], *, on_wait: Callable[[], None] = lambda: None) -> list[str]:
        """Subscribe at QoS 1 and wait for the answer.

        Args:
            filters: topic filters. Their retained messages arrive if the session did not have the filter yet (MQTT 5),
                or each time (MQTT 3.1.1).
            on_wait: called repeatedly until the answer arrives: the answer may be queued behind more messages than
                fit into the inbox, so the caller has to process them.

        Returns:
            The filters that the broker refused, each with its reason.

        Raises:
            ConnectionFailed: the connection ended, or no answer came.
        """
        if not filters:
            return []
        if self.version == MQTT_5:
            from paho.mqtt.subscribeoptions import SubscribeOptions

            handling = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            wanted: Any = [(name, SubscribeOptions(qos=1, retainHandling=handling)) for name in filters]
        else:
            wanted = [(name, 1) for name in filters]
        code, mid = self._client.subscribe(wanted)
        if code != 0 or mid is None:
            raise ConnectionFailed("the connection broke")
        deadline = time.monotonic() + CONNECT_TIMEOUT_SEC
        answered = False
        while not answered and time.monotonic() < deadline:
            with self._suback:
                answered = self._suback.wait_for(
                    lambda: mid in self._subscribed or self.ended.is_set(), _POLL_INTERVAL_SEC
                )
            if not answered:
                on_wait()
        with self._suback:
            reasons = self._subscribed.pop(mid, None)
        if reasons is None:
            raise ConnectionFailed("it did not answer the subscription")
        answers = zip(filters, reasons, strict=False)
        return [f"{name} ({reason})" for name, reason in answers if reason.value >= _FIRST_FAILURE_CODE]

    def close(self, *, forget_session: bool = False) -> None:
        """Disconnect after sending the messages that were passed to ``publish``.

        A healthy broker has then read all of them, but only an acknowledgement proves it.

        Args:
            forget_session: True if the broker need not keep our session (MQTT 5; earlier versions keep it).
        """
        if not self.ended.is_set() and self._thread.is_alive():
            self.close_reason = self.close_reason or "we ended it"
            self._disconnecting = True
            if self.version == MQTT_5:
                self._client.disconnect(properties=forget_session_properties() if forget_session else None)
            else:
                self._client.disconnect()
            if threading.current_thread() is not self._thread:
                self._thread.join(CONNECT_TIMEOUT_SEC)
