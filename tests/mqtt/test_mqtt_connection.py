"""Test one connection to a broker, from opening to closing."""

from __future__ import annotations

from jobdb.mqtt.connection import Connection
from jobdb.mqtt.paho_client import MQTT_5, MQTT_311
from jobdb.mqtt.settings import BrokerSettings
from tests.support.mqtt.brokers import Broker
from tests.support.mqtt.client import RawClient
from tests.support.waiting import TIMEOUT_SEC, wait_until


def _connection(broker: Broker) -> Connection:
    connection = Connection(
        BrokerSettings("127.0.0.1", broker.port),
        "goodbye",
        version=MQTT_5 if broker.version5 else MQTT_311,
        session_sec=0,
        on_message=None,
        on_acknowledged=None,
        on_end=lambda: None,
    )
    connection.open()
    return connection


def test_messages_handed_over_arrive_although_the_connection_is_closed_at_once(broker: Broker) -> None:
    """The broker then sends its acknowledgements to a closed socket, and must not drop the rest for that."""
    with RawClient(broker.port, topics=("goodbye/#",)) as listener:
        for time in range(20):
            connection = _connection(broker)
            for number in range(100):
                connection.publish("goodbye/here", f"{time}:{number}", retain=False)
            connection.close()
            assert connection.ended.wait(TIMEOUT_SEC)
            wait_until(lambda: len(listener.received) == 100)
            assert [int(payload.split(b":")[1]) for _, payload, _ in listener.received] == list(range(100))
            listener.received.clear()
