"""The whole way of an event: register, publish, relay, broker, subscriber, completed."""

from __future__ import annotations

from collections.abc import Callable

from brokerkit.registries import Bench, RawClient, collect, seqs, until
from brokerkit.servers import Broker

from jobdb import JobStatus


def test_whole_path_over_each_broker(each_broker: Broker, make_bench: Callable[[Broker], Bench]) -> None:
    bench = make_bench(each_broker)
    job = bench.job()
    with bench.relaying(), bench.follow(job.job_id) as follower:
        bench.run_job(job, events=20)
        found = [event.seq for event in follower]
        until(lambda: bench.registry.engine.outbox_size()[0] == 0)
    assert found == list(range(1, 21))
    assert follower.outcome is not None and follower.outcome.status is JobStatus.COMPLETED
    assert bench.refused() == {}


def test_wildcard_subscriber_takes_every_job_from_the_broker(
    each_broker: Broker, make_bench: Callable[[Broker], Bench]
) -> None:
    bench = make_bench(each_broker)
    accepted: list[tuple[str, int]] = []
    elsewhere = bench.job(topic_prefix="elsewhere/quite")
    with (
        bench.relaying(),
        bench.follow(on_accepted=lambda a: accepted.append((a.job_id or "", a.seq or 0))) as follower,
    ):
        jobs = [elsewhere] + [bench.job() for _ in range(8)]
        for job in jobs:
            bench.run_job(job, events=5)
        found = seqs(collect(follower, 45))
    assert found == {job.job_id: [1, 2, 3, 4, 5] for job in jobs}
    assert sorted(accepted) == sorted((job.job_id, seq) for job in jobs for seq in range(1, 6))
    assert bench.refused() == {}


def test_terminal_events_are_retained_and_others_are_not(bench: Bench) -> None:
    job = bench.job()
    bench.run_job(job, events=3)
    bench.deliver()
    with RawClient(bench.settings.port, topics=(job.topic,)) as late:
        until(lambda: late.heard)
        [(_topic, payload, retained)] = late.heard
    assert retained
    assert payload.decode() == bench.registry.events(job.job_id)[-1].payload


def test_events_travel_exactly_as_recorded_and_in_order(bench: Bench) -> None:
    job = bench.job()
    with RawClient(bench.settings.port, topics=(job.topic,)) as listener:
        bench.run_job(job, events=300)
        bench.deliver()
        until(lambda: len(listener.heard) >= 300)
    assert [payload.decode() for _, payload, _ in listener.heard] == [
        event.payload for event in bench.registry.events(job.job_id)
    ]
