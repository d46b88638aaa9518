"""Test the whole path of an event: register, publish, relay, broker, subscriber, completed."""

from __future__ import annotations

from collections.abc import Callable

from jobdb import JobStatus
from tests.support.mqtt.brokers import Broker
from tests.support.mqtt.client import RawClient
from tests.support.mqtt.harness import BrokerHarness, collect, seqs
from tests.support.waiting import wait_until


def test_whole_path_over_each_broker(each_broker: Broker, make_harness: Callable[[Broker], BrokerHarness]) -> None:
    harness = make_harness(each_broker)
    job = harness.job()
    with harness.relaying(), harness.follow(job.job_id) as follower:
        harness.run_job(job, events=20)
        found = [event.seq for event in follower]
        wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)
    assert found == list(range(1, 21))
    assert follower.outcome is not None and follower.outcome.status is JobStatus.COMPLETED
    assert harness.refused() == {}


def test_wildcard_subscriber_takes_every_job_from_the_broker(
    each_broker: Broker, make_harness: Callable[[Broker], BrokerHarness]
) -> None:
    harness = make_harness(each_broker)
    accepted: list[tuple[str, int]] = []
    elsewhere = harness.job(topic_prefix="elsewhere/quite")
    with (
        harness.relaying(),
        harness.follow(on_accepted=lambda a: accepted.append((a.job_id or "", a.seq or 0))) as follower,
    ):
        jobs = [elsewhere] + [harness.job() for _ in range(8)]
        for job in jobs:
            harness.run_job(job, events=5)
        found = seqs(collect(follower, 45))
    assert found == {job.job_id: [1, 2, 3, 4, 5] for job in jobs}
    assert sorted(accepted) == sorted((job.job_id, seq) for job in jobs for seq in range(1, 6))
    assert harness.refused() == {}


def test_terminal_events_are_retained_and_others_are_not(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.run_job(job, events=3)
    harness.deliver()
    with RawClient(harness.settings.port, topics=(job.topic,)) as late:
        wait_until(lambda: late.received)
        [(_topic, payload, retained)] = late.received
    assert retained
    assert payload.decode() == harness.registry.events(job.job_id)[-1].payload


def test_events_travel_exactly_as_recorded_and_in_order(harness: BrokerHarness) -> None:
    job = harness.job()
    with RawClient(harness.settings.port, topics=(job.topic,)) as listener:
        harness.run_job(job, events=300)
        harness.deliver()
        wait_until(lambda: len(listener.received) >= 300)
    assert [payload.decode() for _, payload, _ in listener.received] == [
        event.payload for event in harness.registry.events(job.job_id)
    ]
