"""Test the doctor's findings about a broker, and its advice."""

from __future__ import annotations

from jobdb.model import Broker
from jobdb.model.times import now_ms
from tests.support.clocks import ManualClock
from tests.support.mqtt.brokers import Mosquitto
from tests.support.workspace import Workspace


def test_an_outbox_without_a_relay_is_reported(workspace: Workspace) -> None:
    three_minutes_ago = ManualClock(now_ms() - 180_000)
    with Mosquitto(workspace.root) as server:
        with workspace.registry(clock=three_minutes_ago) as registry:
            job = registry.register(agent="codex", prompt="p", broker=Broker("127.0.0.1", server.port))
            for _ in range(3):
                registry.publish(job.job_id, "progress")
        diagnosis = workspace.doctor()
        diagnosis.found("outbox", "warn", "3 events", "3m", "no relay is running")
        diagnosis.apply_advice("outbox")
