"""Test kills of broker, relays and subscribers while events are in flight: none is lost, none is accepted twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.mqtt.brokers import Mosquitto
from tests.support.mqtt.chaos import run_chaos, run_ticket_chaos


def test_short_chaos_run(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    kills = run_chaos(tmp_path, mosquitto(), jobs=10, events=500, pause_sec=0.12, seed=1)
    assert sum(kills.values()) >= 3


def test_short_chaos_run_with_tickets(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    server = mosquitto(lines="autosave_interval 1\nautosave_on_changes true")
    kills = run_ticket_chaos(tmp_path, server, tickets=3, events=100, seed=2)
    assert kills.total() >= 12
