"""The same over PostgreSQL: the relay's and the subscriber's own statements run there too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokerkit.registries import Bench, collect, seqs, until
from brokerkit.servers import Broker, lacking

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from conformance_kit.servers import PostgresServer, find_binaries

from jobdb import JobStatus
from jobdb.engines.postgresql.migrations import migrate_postgresql


@pytest.fixture
def pg_bench(broker: Broker) -> Iterator[Bench]:
    binaries = find_binaries()
    if binaries is None:
        lacking("there is no PostgreSQL server")
    server = PostgresServer(binaries)
    try:
        migrate_postgresql(server.url())
        with Bench(server.url(), broker.port) as made:
            yield made
    finally:
        server.stop()


def test_the_whole_path(pg_bench: Bench) -> None:
    jobs = [pg_bench.job() for _ in range(5)]
    alone = pg_bench.job()
    with pg_bench.relaying(), pg_bench.follow() as follower, pg_bench.follow(alone.job_id, subscriber="one") as one:
        for job in [*jobs, alone]:
            pg_bench.run_job(job, events=20)
        found = seqs(collect(follower, 120))
        assert [event.seq for event in one] == list(range(1, 21))
        until(lambda: pg_bench.registry.engine.outbox_size()[0] == 0)
    assert found == {job.job_id: list(range(1, 21)) for job in [*jobs, alone]}
    assert one.outcome is not None and one.outcome.status is JobStatus.COMPLETED
    assert pg_bench.refused() == {}


def test_what_does_not_come_is_taken_from_the_database(pg_bench: Bench) -> None:
    job = pg_bench.job()
    pg_bench.registry.publish(job.job_id, "started")
    with pg_bench.follow(grace_sec=0.2) as follower:
        assert [event.seq for event in collect(follower, 1)] == [1]
        pg_bench.registry.cancel(job.job_id)
        until(lambda: f"job {job.job_id} was cancelled" in pg_bench.said)
