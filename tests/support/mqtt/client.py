"""A third party at the broker: publishes anything and records everything that it receives."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, Self

from tests.support.waiting import TIMEOUT_SEC


class Message(NamedTuple):
    """A received message."""

    topic: str
    payload: bytes
    retained: bool


class RawClient:
    """A client that publishes any payload and records every message that it receives."""

    def __init__(self, port: int, name: str = "third", *, topics: tuple[str, ...] = ()) -> None:
        import paho.mqtt.client as paho

        self.received: list[Message] = []
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)

        def on_connect(client: Any, *_: Any) -> None:
            if topics:
                client.subscribe([(topic, 1) for topic in topics])
            else:
                self._ready.set()

        self._client.on_connect = on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(TIMEOUT_SEC)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        self.received.append(Message(message.topic, bytes(message.payload), bool(message.retain)))

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the broker."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(TIMEOUT_SEC)
        assert info.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
