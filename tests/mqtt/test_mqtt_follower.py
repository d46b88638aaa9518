"""Test that the iterators over the database and over a broker agree on time limits, handled events and outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobdb import JobStatus, Registry, TimedOut
from jobdb.mqtt import BrokerFollower, BrokerSettings, subscribe
from jobdb.registry.follower import Follower
from tests.support.keys import vault
from tests.support.ports import free_port

Follow = Callable[..., Follower]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a job, three of whose events the subscriber has accepted and not handled."""
    with Registry.open(tmp_path / "jobs.db", create=True, vault=vault()) as opened:
        opened.register(agent="a", prompt="", job_id="ours")
        opened.engine.open_feed("watcher", start="beginning")
        for _ in range(3):
            opened.accept(opened.publish("ours", "progress").payload, subscriber="watcher")
        yield opened


@pytest.fixture(params=["database", "broker"])
def follow(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Follow]:
    """Follow in the database, or over a broker that is down: events accepted before are yielded in both cases."""
    opened: list[BrokerFollower] = []

    def over_broker(job_id: str | None = None, **limits: float) -> Follower:
        settings = BrokerSettings("127.0.0.1", free_port())
        opened.append(
            subscribe(
                registry, job_id, subscriber="watcher", settings=settings, report=lambda text: None,
                timeout_sec=limits.get("timeout_sec"), idle_timeout_sec=limits.get("idle_timeout_sec"),
            )
        )  # fmt: skip
        return opened[-1]

    def in_database(job_id: str | None = None, **limits: float) -> Follower:
        return registry.subscribe(
            job_id, subscriber="watcher",
            timeout_sec=limits.get("timeout_sec"), idle_timeout_sec=limits.get("idle_timeout_sec"),
        )  # fmt: skip

    yield over_broker if request.param == "broker" else in_database
    for follower in opened:
        follower.close()


def handled_seq(registry: Registry) -> int:
    return registry.subscriptions(subscriber="watcher")[0].handled_seq


@pytest.mark.parametrize("job_id", ["ours", None])
def test_the_total_limit_is_checked_before_each_event(registry: Registry, follow: Follow, job_id: str | None) -> None:
    """Events that are available at once must not extend an iteration past its limit."""
    follower = follow(job_id, timeout_sec=0.2)
    assert next(follower).seq == 1
    time.sleep(0.25)
    for _ in range(2):
        with pytest.raises(TimedOut, match=r"0\.2 s in all are over"):
            next(follower)
    assert handled_seq(registry) == 1, "an event that was not yielded is not handled"


@pytest.mark.parametrize("job_id", ["ours", None])
def test_the_idle_limit_restarts_with_each_event(follow: Follow, job_id: str | None) -> None:
    follower = follow(job_id, idle_timeout_sec=0.3)
    for seq in (1, 2, 3):
        assert next(follower).seq == seq
        time.sleep(0.2)
    with pytest.raises(TimedOut, match="without an event"):
        next(follower)


def test_the_outcome_is_set_when_the_iteration_has_ended(registry: Registry, follow: Follow) -> None:
    registry.complete("ours")
    follower = follow("ours", timeout_sec=60.0)
    assert follower.outcome is None
    assert [event.seq for event in follower] == [1, 2, 3, 4]
    for _ in range(2):
        assert follower.outcome is not None and follower.outcome.status is JobStatus.COMPLETED
        with pytest.raises(StopIteration):
            next(follower)
    assert handled_seq(registry) == 4


def test_an_ended_job_is_an_outcome_and_not_a_timeout(registry: Registry, follow: Follow) -> None:
    """The limit is for waiting: the next step after the last event yields the outcome."""
    registry.cancel("ours")
    follower = follow("ours", timeout_sec=0.4)
    assert [next(follower).seq for _ in range(3)] == [1, 2, 3]
    time.sleep(0.45)
    assert list(follower) == []
    assert follower.outcome is not None and follower.outcome.status is JobStatus.CANCELLED


def test_handled_marks_the_last_event_without_requesting_the_next(registry: Registry, follow: Follow) -> None:
    follower = follow("ours", timeout_sec=60.0)
    assert next(follower).seq == 1 and handled_seq(registry) == 0
    follower.handled()
    assert handled_seq(registry) == 1
    assert next(follower).seq == 2
