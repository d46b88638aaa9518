"""Test waiting for work, for the end of a job and for events, woken by another connection, on every engine."""

import threading
import time

import pytest

from jobdb import JobStatus, TimedOut
from jobdb.crypto.master_key import MasterKey
from jobdb.crypto.vault import Vault
from tests.support.threads import run_in_threads


@pytest.fixture
def pair(database):
    """Two registries, as of two processes."""
    with database.open() as one, database.open() as two:
        yield one, two


def run_later(action, delay=0.15):
    """Run an action in another thread after a delay."""
    thread = threading.Timer(delay, action)
    thread.start()
    return thread


def test_a_claim_waits_for_work(pair):
    one, two = pair
    thread = run_later(lambda: two.register(agent="a", prompt="", job_id="new"))
    assert one.claim(worker="w", wait_sec=30).job_id == "new"
    thread.join()


def test_a_claim_waits_no_longer_than_its_timeout(pair):
    began = time.monotonic()
    assert pair[0].claim(worker="w", wait_sec=0.2) is None
    assert time.monotonic() - began >= 0.2


def test_a_released_job_wakes_a_waiting_worker(pair):
    one, two = pair
    two.register(agent="a", prompt="", job_id="back")
    two.claim(worker="first")
    thread = run_later(lambda: two.release("back", attempt=1))
    assert one.claim(worker="second", wait_sec=30).attempt == 2
    thread.join()


@pytest.mark.parametrize("how", ["delay", "lease"])
def test_a_waiting_claim_takes_what_time_alone_makes_claimable(pair, how):
    one, two = pair
    two.register(agent="a", prompt="", job_id="later")
    two.claim(worker="first", lease_sec=0.3 if how == "lease" else 300)
    if how == "delay":
        two.release("later", attempt=1, delay_sec=0.3)
    assert one.claim(worker="second", wait_sec=0) is None
    assert one.claim(worker="second", wait_sec=30).attempt == 2


def test_a_waiting_claim_asks_seldom_for_a_job_that_only_another_process_can_end(database, pair, monkeypatch):
    pair[0].register(agent="a", prompt="", job_id="last-try", max_attempts=1)
    pair[0].claim(worker="first", lease_sec=0.001)
    with database.open(vault=Vault(MasterKey(bytes(31) + b"1", "a test"))) as without_key:
        asked = []
        claim = without_key.engine.claim
        monkeypatch.setattr(without_key.engine, "claim", lambda **wanted: asked.append(wanted) or claim(**wanted))
        assert without_key.claim(worker="w", wait_sec=0.8) is None
    assert len(asked) < 15
    assert [one.action for one in pair[0].reap()] == ["ended"]


def test_wait_returns_when_the_job_has_ended(pair):
    one, two = pair
    two.register(agent="a", prompt="", job_id="j")
    thread = run_later(lambda: two.complete("j", detail="done"))
    assert one.wait("j", timeout_sec=30).detail == "done"
    thread.join()


def test_a_subscriber_is_woken_by_each_event(pair):
    one, two = pair
    two.register(agent="a", prompt="", job_id="j")
    follower = one.subscribe("j", subscriber="s", timeout_sec=30)
    for seq in (1, 2, 3):
        thread = run_later(lambda: two.publish("j", "progress"), 0.05)
        assert next(follower).seq == seq
        thread.join()
    two.complete("j")
    assert [event.event for event in follower] == ["completed"]
    assert follower.outcome.status is JobStatus.COMPLETED


def test_a_feed_is_woken_by_each_event(pair):
    one, two = pair
    two.register(agent="a", prompt="", job_id="j")
    follower = one.subscribe(subscriber="s", timeout_sec=30)
    thread = run_later(lambda: two.publish("j", "progress"))
    assert next(follower).seq == 1
    thread.join()


def test_threads_share_a_registry(database):
    with database.open() as registry:
        job = registry.register(agent="a", prompt="")

        def publish_and_read():
            for _ in range(25):
                registry.publish(job.job_id, "progress")
                registry.get(job.job_id)

        assert run_in_threads([publish_and_read] * 12) == []
        assert [event.seq for event in registry.events(job.job_id)] == list(range(1, 301))


def test_idle_waiting_uses_no_cpu_time(pair):
    began = time.process_time()
    with pytest.raises(TimedOut):
        next(pair[0].subscribe(subscriber="s", timeout_sec=1.5))
    assert time.process_time() - began < 0.5
