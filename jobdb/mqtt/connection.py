"""One MQTT connection, from CONNECT to its end: a thin, typed face on paho-mqtt. Called by :mod:`.link` alone.

A connection is used once. paho would reconnect by itself and send again what it had in flight, in an order and with
message ids of its own; here the database is what remembers, so a lost connection is thrown away with everything in it
and the next one begins from the outbox or from the broker's session. paho is imported when a connection is opened.

paho's network loop runs in a thread of ours, so that its end, for whatever reason, is always noticed; a registered
write callback keeps ``publish`` from writing to the socket in the caller's thread beside it.
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
from ..errors import InvalidInput
from ..system.interrupt_safe_flag import Flag
from .settings import BrokerSettings

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

MQTT_5, MQTT_311 = 5, 4
KEEPALIVE_SEC = 30
CONNECT_TIMEOUT_SEC = 10.0
DISCONNECT_TIMEOUT_SEC = 5.0
_DISCONNECT_IDLE_SEC = 0.5
_POLL_INTERVAL_SEC = 0.05
CONNACK_TIMEOUT_SEC = {MQTT_5: 5.0, MQTT_311: 10.0}
"""A broker of MQTT 3.1.1 may wait for more of a CONNECT of MQTT 5 and never answer."""
MAX_IN_FLIGHT = 500
MAX_PACKET_BYTES = MAX_PAYLOAD_BYTES + 65_536
"""The broker sends nothing larger (MQTT 5): no event is, with its topic and its properties."""
OVERSIZED_PAYLOAD = bytes(MAX_PAYLOAD_BYTES + 1)
"""Stands for the content of a message that is too large to be an event: that content is not kept."""
_SESSION_TAKEN_OVER = 0x8E
_FIRST_FAILURE_CODE = 0x80


class ConnectionFailed(Exception):
    """The broker was not reached or refused; stays inside this package.

    Attributes:
        other_version: the broker may speak another version of MQTT.
    """

    def __init__(self, reason: str, *, other_version: bool = False) -> None:
        super().__init__(reason)
        self.other_version = other_version


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came in. It is acknowledged through the connection that it came on, or never."""

    connection: Connection
    mid: int
    topic: str
    payload: bytes = field(repr=False)
    retained: bool
    qos: int

    def acknowledge(self) -> None:
        """Tells the broker that it need not send it again. Without effect when the connection is gone."""
        if self.qos == 1:
            self.connection.acknowledge(self.mid)


class Connection:
    """One MQTT connection.

    Args:
        settings: the broker.
        client_id: under which it knows us.
        version: MQTT_5 or MQTT_311.
        session_sec: how long the broker keeps our session after a disconnect, in seconds; 0: begin clean.
        on_message: called in the network thread for each message. Nothing else is read while it runs, and the
            connection ends when it raises.
        on_acknowledged: called in the network thread with a message id, and why the broker refused it, or None.
        on_end: called in the network thread when the connection has ended.

    Attributes:
        session_present: the broker still had our session.
        max_in_flight: how many unacknowledged messages the broker takes.
        max_packet_bytes: the largest packet that the broker takes, in bytes; None: any.
        retain_available: whether the broker takes retained messages.
        ended: set when the connection has ended; ``close_reason`` then says why.
        session_taken_over: another client with our id made the broker end it.
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
        paho = import_paho()
        settings, five = self.settings, self.version == MQTT_5
        client: Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            clean_session=None if five else self._session_sec == 0,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages = 0  # unlimited there: we keep count ourselves, by the broker's limit
        client.connect_timeout = CONNECT_TIMEOUT_SEC
        if settings.username is not None or settings.password is not None:
            client.username_pw_set(settings.username or "", settings.password)
        if settings.tls:
            client.tls_set_context(_tls_context(settings))
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._acknowledged
        client.on_subscribe = self._subscription_answered
        client.on_socket_register_write = lambda *_: None
        client.on_socket_close = self._linger
        return client

    def open(self) -> None:
        """Connects, and returns when the broker has let us in.

        Raises:
            ConnectionFailed: it cannot be reached, is not who it should be, or refuses.
        """
        try:
            if self.version == MQTT_5:
                self._client.connect(
                    self.settings.host,
                    self.settings.port,
                    KEEPALIVE_SEC,
                    clean_start=self._session_sec == 0,
                    properties=self._connect_properties(),
                )
            else:
                self._client.connect(self.settings.host, self.settings.port, KEEPALIVE_SEC)
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "the TLS handshake failed"
            raise ConnectionFailed(f"TLS: {reason}") from error
        except (OSError, ValueError) as error:
            raise ConnectionFailed(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
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

    def _connect_properties(self) -> Any:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_sec
        properties.ReceiveMaximum = MAX_IN_FLIGHT
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        return properties

    def _run(self) -> None:
        """The network thread: paho's loop until the connection has ended."""
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
            self.close_reason = f"the broker said: {reason}"
            self.session_taken_over = reason.value == _SESSION_TAKEN_OVER

    def _linger(self, _client: Any, _data: Any, ending: Any) -> None:
        """Before paho closes the socket: when it is our goodbye, the broker gets time to read all of it.

        A socket that is closed while the broker still writes to it (acknowledgements, messages) answers with a reset,
        and a broker that meets a reset throws away what it has not read yet. Most brokers close at once when they have
        read the goodbye; one that leaves it to us falls silent.
        """
        if not self._disconnecting:
            return
        deadline = time.monotonic() + DISCONNECT_TIMEOUT_SEC
        try:
            ending.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                ending.settimeout(min(left, _DISCONNECT_IDLE_SEC))
                if not ending.recv(65_536):
                    return
        except OSError:
            pass  # it is over, one way or the other

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
        """Hands a message to the network thread, QoS 1; returns its message id."""
        return self._client.publish(topic, payload.encode(), qos=1, retain=retain and self.retain_available).mid

    def acknowledge(self, mid: int) -> None:
        """Sends the PUBACK of a message that came in on this connection."""
        if not self.ended.is_set():
            self._client.ack(mid, 1)

    def subscribe(self, filters: Sequence[str], *, on_wait: Callable[[], None] = lambda: None) -> list[str]:
        """Subscribes at QoS 1 and waits for the answer.

        Args:
            filters: topic filters. Their retained messages come where the session did not have them yet (MQTT 5), or
                each time (MQTT 3.1.1).
            on_wait: called again and again until the answer is there: it may stand behind more messages than find
                room, so whoever waits here has to take them.

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
        """Says goodbye and ends the connection; what was handed over before is sent first.

        A broker that is well has read all of it then; only an acknowledgement says so.

        Args:
            forget_session: the broker need not keep our session (MQTT 5; earlier versions keep it).
        """
        if not self.ended.is_set() and self._thread.is_alive():
            self.close_reason = self.close_reason or "we ended it"
            self._disconnecting = True
            if self.version == MQTT_5:
                self._client.disconnect(properties=_session_expiry_zero() if forget_session else None)
            else:
                self._client.disconnect()
            if threading.current_thread() is not self._thread:
                self._thread.join(CONNECT_TIMEOUT_SEC)


def import_paho() -> Any:
    """paho's client module.

    Raises:
        InvalidInput: it is not installed, or older than 2.
    """
    try:
        import paho.mqtt.client as paho
    except ImportError:
        raise InvalidInput("MQTT needs the package paho-mqtt, which is missing: pip install 'jobdb[mqtt]'") from None
    if not hasattr(paho, "CallbackAPIVersion"):
        raise InvalidInput("paho-mqtt is older than 2.0; install a newer one: pip install 'jobdb[mqtt]'")
    return paho


def _session_expiry_zero() -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    return properties


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    """A context that verifies the broker's certificate and name, with our own certificate where there is one."""
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
