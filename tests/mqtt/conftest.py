"""Fixtures of the MQTT tests: a broker (Mosquitto, else amqtt), a registry whose jobs use it, and a running relay."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mqtt.brokers import (
    Amqtt,
    Broker,
    Mosquitto,
    has_amqtt,
    mosquitto_path,
    require_mosquitto,
    skip_or_fail,
)
from tests.support.mqtt.harness import BrokerHarness


@pytest.fixture(autouse=True)
def _no_broker_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MQTT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """The best broker there is."""
    folder = tmp_path / "broker"
    folder.mkdir()
    if mosquitto_path() is None and not has_amqtt():
        skip_or_fail("neither Mosquitto nor amqtt is installed")
    server: Broker = Mosquitto(folder) if mosquitto_path() else Amqtt(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["mosquitto", "amqtt"])
def each_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Each broker that is installed. One is enough; none is not."""
    folder = tmp_path / "broker"
    folder.mkdir()
    there = {"mosquitto": mosquitto_path() is not None, "amqtt": has_amqtt()}
    if not any(there.values()):
        skip_or_fail("neither Mosquitto nor amqtt is installed")
    if not there[request.param]:
        pytest.skip(f"{request.param} is not installed; the other broker is")
    server: Broker = Mosquitto(folder) if request.param == "mosquitto" else Amqtt(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Makes Mosquitto brokers with a configuration of the test's."""
    require_mosquitto()
    started: list[Mosquitto] = []

    def make(**how: object) -> Mosquitto:
        folder = tmp_path / f"mosquitto{len(started)}"
        folder.mkdir()
        server = Mosquitto(folder, **how)  # type: ignore[arg-type]
        started.append(server)
        server.start()
        return server

    yield make
    for server in started:
        server.stop()


@pytest.fixture
def harness(tmp_path: Path, broker: Broker) -> Iterator[BrokerHarness]:
    """A registry beside a broker."""
    with BrokerHarness(tmp_path / "db" / "jobs.db", broker.port) as made:
        yield made


@pytest.fixture
def make_harness(tmp_path: Path) -> Iterator[Callable[[Broker], BrokerHarness]]:
    """Makes a registry beside a given broker."""
    made: list[BrokerHarness] = []

    def make(server: Broker) -> BrokerHarness:
        made.append(BrokerHarness(tmp_path / f"db{len(made)}" / "jobs.db", server.port))
        return made[-1]

    yield make
    for one in made:
        one.close()
