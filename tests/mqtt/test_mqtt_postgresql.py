"""Test MQTT over PostgreSQL: the statements of the relay and the subscriber run there too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobdb import JobStatus
from tests.support.databases import PostgresDatabase
from tests.support.mqtt.brokers import Broker
from tests.support.mqtt.harness import BrokerHarness, collect, seqs
from tests.support.waiting import wait_until


@pytest.fixture
def postgres_harness(broker: Broker, postgres_database: PostgresDatabase) -> Iterator[BrokerHarness]:
    with BrokerHarness(postgres_database.url, broker.port) as made:
        yield made


def test_the_whole_path_over_postgresql(postgres_harness: BrokerHarness) -> None:
    jobs = [postgres_harness.job() for _ in range(5)]
    alone = postgres_harness.job()
    with (
        postgres_harness.relaying(),
        postgres_harness.follow() as follower,
        postgres_harness.follow(alone.job_id, subscriber="one") as one,
    ):
        for job in [*jobs, alone]:
            postgres_harness.run_job(job, events=20)
        found = seqs(collect(follower, 120))
        assert [event.seq for event in one] == list(range(1, 21))
        wait_until(lambda: postgres_harness.registry.engine.outbox_size()[0] == 0)
    assert found == {job.job_id: list(range(1, 21)) for job in [*jobs, alone]}
    assert one.outcome is not None and one.outcome.status is JobStatus.COMPLETED
    assert postgres_harness.refused() == {}


def test_missing_events_are_backfilled_from_postgresql(postgres_harness: BrokerHarness) -> None:
    job = postgres_harness.job()
    postgres_harness.registry.publish(job.job_id, "started")
    with postgres_harness.follow(grace_sec=0.2) as follower:
        assert [event.seq for event in collect(follower, 1)] == [1]
        postgres_harness.registry.cancel(job.job_id)
        wait_until(lambda: f"job {job.job_id} was cancelled" in postgres_harness.messages)
