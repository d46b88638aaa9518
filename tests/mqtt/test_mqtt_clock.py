"""Test a machine that works with its clock ahead and dies, and whose clock is then right: processes under faketime."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobdb import JobStatus
from jobdb.mqtt import Relay, TicketOutbox, issue_ticket
from tests.support.mqtt.brokers import Broker
from tests.support.mqtt.harness import BrokerHarness
from tests.support.requirements import require
from tests.support.waiting import TIMEOUT_SEC, wait_until

LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
YEARS_MS = 9 * 366 * 86_400_000


@pytest.fixture
def clock_ahead_env(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a process whose clock is years ahead."""
    found = [path for pattern in LIBRARIES for path in glob.glob(pattern)]
    require(found, "libfaketime is not installed: apt-get install faketime")
    return {
        **os.environ,
        "LD_PRELOAD": found[0],
        "FAKETIME": "@2038-01-01 00:00:00",
        "JOBDB_URL": f"sqlite:///{tmp_path}/db/jobs.db",
    }


def test_a_lease_from_a_clock_that_was_ahead_is_taken_over(
    broker: Broker, tmp_path: Path, clock_ahead_env: dict[str, str]
) -> None:
    def call(*words: str) -> None:
        command = [sys.executable, "-m", "jobdb.cli", *words]
        done = subprocess.run(
            command, env=clock_ahead_env, capture_output=True, text=True, timeout=TIMEOUT_SEC, check=False
        )
        assert done.returncode == 0, done.stderr

    with BrokerHarness(tmp_path / "db" / "jobs.db", broker.port) as harness:
        harness.job(job_id="early")
        call("claim", "--job", "early", "--worker", "w", "--lease-sec", "60")
        call("publish", "early", "started", "--attempt", "1")
        relay = subprocess.Popen(
            [sys.executable, "-m", "jobdb.cli", "relay"],
            env=clock_ahead_env,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)
        finally:
            relay.kill()  # it leaves its lease behind
            relay.communicate(timeout=TIMEOUT_SEC)
        found = harness.registry.get("early")
        assert found.lease_expires_at is not None and found.lease_expires_at.year == 2038

        harness.registry.publish("early", "progress", attempt=1)
        harness.deliver()
        assert [reaped.action for reaped in harness.registry.reap()] == ["returned"]
        assert harness.registry.get("early").status is JobStatus.PENDING


def test_a_ticket_relay_lease_from_a_clock_that_was_ahead_is_taken_over(harness: BrokerHarness, tmp_path: Path) -> None:
    harness.job(job_id="j")
    harness.registry.claim(worker="remote", job_id="j", lease_sec=None)
    ticket = issue_ticket(harness.registry, "j", environment=harness.environment)
    now = harness.registry.engine.store.clock
    path = tmp_path / "state" / "tickets.db"
    with TicketOutbox.open(ticket, path=path, clock=lambda: now() + YEARS_MS) as outbox:
        outbox.publish("started")
        assert outbox.acquire_lease("dead", 15_000)
    with TicketOutbox.open(ticket, path=path) as outbox:
        done = Relay(outbox, report=lambda text: None).run(until_empty=True, timeout_sec=TIMEOUT_SEC)
        assert done.is_leader and outbox.count_pending() == 0
        assert outbox.acquire_lease("mine", 15_000)
        assert not outbox.acquire_lease("another's", 15_000)


def test_events_from_a_clock_that_was_ahead_are_backfilled_from_the_database(
    harness: BrokerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has lost the event. The feed of all jobs continues after it as well."""
    store = harness.registry.engine.store
    right = store.clock
    job = harness.job(job_id="j")
    with harness.follow(subscriber="all", grace_sec=0.1) as every, harness.follow("j", grace_sec=0.1) as one:
        monkeypatch.setattr(store, "clock", lambda: right() + YEARS_MS)
        harness.registry.publish(job.job_id, "started")
        monkeypatch.setattr(store, "clock", right)
        harness.registry.publish(job.job_id, "progress")
        found: dict[str, list[int]] = {}
        for name, follower in (("all", every), ("one", one)):
            found[name] = [next(follower).seq for _ in range(2)]
    assert found == {"all": [1, 2], "one": [1, 2]}
