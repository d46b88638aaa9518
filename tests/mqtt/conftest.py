"""Fixtures of the MQTT tests: a broker (Mosquitto, else amqtt), a registry whose jobs use it, and a running relay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mqtt.brokers import Amqtt, Broker, Mosquitto
from tests.support.mqtt.harness import BrokerHarness
from tests.support.requirements import find_program, has_module, require, require_broker, require_mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Start Mosquitto, or amqtt if Mosquitto is not installed."""
    folder = tmp_path / "broker"
    folder.mkdir()
    require_broker()
    server: Broker = Mosquitto(folder) if find_program("mosquitto") else Amqtt(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["mosquitto", "amqtt"])
def each_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Start each broker in turn. At least one must be installed."""
    folder = tmp_path / "broker"
    folder.mkdir()
    require_broker()
    installed = {"mosquitto": find_program("mosquitto") is not None, "amqtt": has_module("amqtt")}
    require(installed[request.param], f"{request.param} is not installed; the other broker is")
    server: Broker = Mosquitto(folder) if request.param == "mosquitto" else Amqtt(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Start Mosquitto brokers with a configuration of the test's."""
    require_mosquitto()
    started: list[Mosquitto] = []

    def make(**options: object) -> Mosquitto:
        folder = tmp_path / f"mosquitto{len(started)}"
        folder.mkdir()
        server = Mosquitto(folder, **options)  # type: ignore[arg-type]
        started.append(server)
        server.start()
        return server

    yield make
    for server in started:
        server.stop()


@pytest.fixture
def harness(tmp_path: Path, broker: Broker) -> Iterator[BrokerHarness]:
    """A registry whose jobs use the broker."""
    with BrokerHarness(tmp_path / "db" / "jobs.db", broker.port) as made:
        yield made


@pytest.fixture
def make_harness(tmp_path: Path) -> Iterator[Callable[[Broker], BrokerHarness]]:
    """Create registries whose jobs use a given broker."""
    made: list[BrokerHarness] = []

    def make(server: Broker) -> BrokerHarness:
        made.append(BrokerHarness(tmp_path / f"db{len(made)}" / "jobs.db", server.port))
        return made[-1]

    yield make
    for one in made:
        one.close()
