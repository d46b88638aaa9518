"""Test 5,000 events of 50 jobs over a real broker while broker, relays and subscribers are killed at random.

The short version is in tests/mqtt; this one is as long as the promise: every event is accepted exactly once by each
subscriber, in order for each job, and every job ends as it should, without a false alarm.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.mqtt.brokers import Mosquitto
from tests.support.mqtt.chaos import run_chaos, run_ticket_chaos
from tests.support.requirements import require_mosquitto


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    require_mosquitto()
    return tmp_path


def _mosquitto(folder: Path, lines: str = "") -> Mosquitto:
    place = folder / "broker"
    place.mkdir()
    server = Mosquitto(place, lines=lines)
    server.start()
    return server


def test_five_thousand_events_survive_kills_of_every_process(folder: Path) -> None:
    server = _mosquitto(folder)
    try:
        kills = run_chaos(folder, server, jobs=50, events=5000, pause_sec=0.05, seed=3)
    finally:
        server.stop()
    assert kills.total() >= 20 and len(kills) == 5, "each of them was killed"


def test_tickets_survive_kills_of_workers_and_relays(folder: Path) -> None:
    server = _mosquitto(folder, "max_queued_messages 0\nautosave_interval 1\nautosave_on_changes true")
    try:
        kills = run_ticket_chaos(folder, server, tickets=5, events=400, seed=4)
    finally:
        server.stop()
    assert kills.total() >= 12
