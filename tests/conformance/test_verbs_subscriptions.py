"""Test following jobs in the database on every engine: handled_seq, restarts, feeds."""

import pytest

from jobdb import JobStatus, NewEvent, TimedOut
from jobdb.model import EventKind
from tests.support.wire_events import signed


def publish(registry, job_id, count=1):
    return registry.publish_many([NewEvent(job_id=job_id, event=EventKind.PROGRESS)] * count)


def seqs(registry, job_id, subscriber="s", most=None, **more):
    """Return the seqs that a subscriber gets before its timeout; each is handled when the next is requested."""
    more.setdefault("idle_timeout_sec", 0.05)
    found = []
    try:
        for event in registry.subscribe(job_id, subscriber=subscriber, **more):
            found.append(event.seq if job_id else (event.job_id, event.seq))
            if most is not None and len(found) >= most:
                return found
    except TimedOut:
        pass
    return found


def numbers(registry, subscriber="s"):
    (found,) = registry.subscriptions(subscriber=subscriber)
    return found.start_seq, found.last_seq, found.handled_seq


def test_a_finished_job_ends_the_iteration_with_its_outcome(registry, job):
    publish(registry, job.job_id, 3)
    registry.complete(job.job_id)
    follower = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    assert [event.seq for event in follower] == [1, 2, 3, 4]
    assert follower.outcome == registry.get(job.job_id) and follower.outcome.status is JobStatus.COMPLETED
    assert numbers(registry) == (0, 4, 4)
    again = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    assert list(again) == [] and again.outcome == follower.outcome
    late = registry.subscribe(job.job_id, subscriber="late", start="now", timeout_sec=20)
    assert list(late) == [] and late.outcome == follower.outcome


def test_a_cancelled_job_ends_the_iteration_too(registry, job):
    registry.cancel(job.job_id)
    follower = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    assert list(follower) == [] and follower.outcome.status is JobStatus.CANCELLED


def test_accepted_unhandled_events_come_first_after_a_restart(registry, job):
    publish(registry, job.job_id, 5)
    follower = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    assert [next(follower).seq for _ in range(3)] == [1, 2, 3]
    assert numbers(registry) == (0, 5, 2)
    publish(registry, job.job_id, 1)
    again = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    assert next(again).seq == 3
    again.handled()
    assert numbers(registry)[2] == 3
    assert seqs(registry, job.job_id) == [4, 5, 6]


def test_more_events_than_one_read_returns(registry, job):
    publish(registry, job.job_id, 120)
    registry.complete(job.job_id)
    assert seqs(registry, job.job_id, timeout_sec=20) == list(range(1, 122))


def test_start_now_yields_only_later_events(registry, job):
    publish(registry, job.job_id, 3)
    assert seqs(registry, job.job_id, start="now") == []
    publish(registry, job.job_id, 2)
    assert seqs(registry, job.job_id, start="beginning") == [4, 5]
    assert numbers(registry) == (3, 5, 5) or numbers(registry)[2] == 4


def test_followed_events_are_duplicates_on_the_wire_and_the_other_way_round(registry, job):
    lines = [event.payload for event in publish(registry, job.job_id, 4)]
    assert seqs(registry, job.job_id, most=4) == [1, 2, 3, 4]
    assert [registry.accept(line, subscriber="s").verdict for line in lines] == ["duplicate"] * 4
    assert [registry.accept(line, subscriber="t").verdict for line in lines[:2]] == ["accepted"] * 2
    assert seqs(registry, job.job_id, subscriber="t") == [1, 2, 3, 4]


def test_events_that_a_subscriber_skipped_are_not_yielded(registry, job):
    token = registry.tokens.show(job.job_id)
    lines = {seq: signed(job.job_id, seq, token=token) for seq in range(1, 7)}
    for seq in (1, 4, 6):
        registry.accept(lines[seq], subscriber="s")
    for seq in range(1, 7):
        registry.accept(lines[seq], subscriber="other", window=0)
    assert seqs(registry, job.job_id) == [1, 4, 6]
    assert seqs(registry, job.job_id, subscriber="other") == [1, 2, 3, 4, 5, 6]


def test_a_late_event_is_yielded_although_newer_ones_were_handled(registry, job):
    token = registry.tokens.show(job.job_id)
    for seq in (1, 2, 4, 5):
        registry.accept(signed(job.job_id, seq, token=token), subscriber="s")
    assert seqs(registry, job.job_id) == [1, 2, 4, 5]
    assert numbers(registry)[2] == 5
    registry.accept(signed(job.job_id, 3, token=token), subscriber="s", window=5)
    assert seqs(registry, job.job_id) == [3, 4, 5]


def test_a_late_event_that_arrives_while_a_newer_one_is_handled_is_not_lost(registry, job):
    token = registry.tokens.show(job.job_id)
    for seq in (1, 2, 4):
        registry.accept(signed(job.job_id, seq, token=token), subscriber="s")
    follower = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    assert [next(follower).seq for _ in range(3)] == [1, 2, 4]
    registry.accept(signed(job.job_id, 3, token=token), subscriber="s", window=5)
    follower.handled()
    assert next(follower).seq == 3


def test_handled_seq_never_decreases_and_never_passes_the_accepted_seq(registry, job):
    publish(registry, job.job_id, 5)
    engine = registry.engine
    assert len(engine.follow(job.job_id, subscriber="s", start="beginning", limit=3).events) == 3
    engine.mark_handled(job.job_id, subscriber="s", seq=2)
    engine.mark_handled(job.job_id, subscriber="s", seq=1)
    assert numbers(registry) == (0, 3, 2)
    engine.mark_handled(job.job_id, subscriber="s", seq=5)
    assert numbers(registry) == (0, 3, 2)
    engine.mark_handled(job.job_id, subscriber="nobody", seq=2)
    engine.mark_handled("nobody", subscriber="s", seq=2)


def test_two_followers_with_one_name_lose_nothing(registry, job):
    publish(registry, job.job_id, 4)
    one = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    two = registry.subscribe(job.job_id, subscriber="s", timeout_sec=20)
    assert [next(one).seq, next(two).seq, next(one).seq, next(one).seq] == [1, 1, 2, 3]
    assert next(two).seq == 2
    assert numbers(registry) == (0, 4, 2)


def test_time_limits_end_a_wait(registry, job):
    with pytest.raises(TimedOut, match="in all"):
        next(registry.subscribe(job.job_id, subscriber="s", timeout_sec=0.02))
    with pytest.raises(TimedOut, match="without an event"):
        next(registry.subscribe(job.job_id, subscriber="s", idle_timeout_sec=0.02))
    with pytest.raises(TimedOut):
        registry.wait(job.job_id, timeout_sec=0.02)
    registry.complete(job.job_id)
    assert registry.wait(job.job_id, timeout_sec=20).status is JobStatus.COMPLETED


def test_a_total_time_limit_holds_while_events_keep_coming(registry, job):
    publish(registry, job.job_id)
    for which in (job.job_id, None):
        handed_out = 0
        with pytest.raises(TimedOut, match="in all"):
            for _ in registry.subscribe(which, subscriber="s", timeout_sec=1.0):
                publish(registry, job.job_id)
                handed_out += 1
                assert handed_out < 10_000
        assert handed_out


def test_subscriptions_are_listed(registry, clock):
    a, b = (registry.register(agent="x", prompt="").job_id for _ in range(2))
    for job_id in (a, b):
        publish(registry, job_id, 2)
        for subscriber in ("one", "two"):
            seqs(registry, job_id, subscriber, most=1)
    names = lambda **wanted: [(s.subscriber, s.job_id) for s in registry.subscriptions(**wanted)]  # noqa: E731
    assert names() == [("one", a), ("two", a), ("one", b), ("two", b)]
    assert names(job_id=b) == [("one", b), ("two", b)]
    assert names(subscriber="two") == [("two", a), ("two", b)]
    assert names(limit=1) == [("one", a)]
    assert names(job_id="nobody") == []
    first = registry.subscriptions()[0]
    assert (first.job_last_seq, first.job_status) == (2, JobStatus.RUNNING)
    assert first.last_event_at.timestamp() * 1000 == clock.now_ms


# -- all jobs


def test_a_feed_yields_every_event_of_every_job(registry):
    a, b = (registry.register(agent="x", prompt="").job_id for _ in range(2))
    publish(registry, a, 2)
    publish(registry, b, 1)
    assert seqs(registry, None) == [(a, 1), (a, 2), (b, 1)]
    publish(registry, b, 1)
    c = registry.register(agent="x", prompt="").job_id
    publish(registry, c, 1)
    found = seqs(registry, None)
    assert found[-2:] == [(b, 2), (c, 1)] and set(found[:-2]) <= {(b, 1)}


def test_a_feed_resumes_after_the_last_handled_event(registry):
    a, b = (registry.register(agent="x", prompt="").job_id for _ in range(2))
    publish(registry, a, 2)
    publish(registry, b, 2)
    assert seqs(registry, None, most=3) == [(a, 1), (a, 2), (b, 1)]
    assert seqs(registry, None, most=2) == [(b, 1), (b, 2)]
    assert seqs(registry, None)[-1:] == [(b, 2)]
    assert all(s.handled_seq >= s.start_seq for s in registry.subscriptions(subscriber="s"))


def test_a_feed_that_starts_now_yields_only_later_events(registry):
    a, b = (registry.register(agent="x", prompt="").job_id for _ in range(2))
    publish(registry, a, 3)
    assert seqs(registry, None, start="now") == []
    publish(registry, a, 1)
    publish(registry, b, 1)
    assert seqs(registry, None, start="now") == [(a, 4), (b, 1)]


def test_a_feed_reads_more_than_one_page(registry):
    jobs = [registry.register(agent="x", prompt="").job_id for _ in range(7)]
    for _ in range(3):
        registry.publish_many([NewEvent(job_id=job_id, event=EventKind.PROGRESS) for job_id in jobs] * 50)
    found = seqs(registry, None, idle_timeout_sec=1.0)
    assert len(found) == 7 * 150 == len(set(found))
    for job_id in jobs:
        assert [seq for name, seq in found if name == job_id] == list(range(1, 151))


@pytest.mark.parametrize("start", ["beginning", "now"])
def test_pruned_jobs_do_not_stop_a_feed(registry, clock, start):
    """The newest events are pruned with their job, so that their ids could be reused."""
    a, b = (registry.register(agent="x", prompt="").job_id for _ in range(2))
    publish(registry, a, 2)
    seqs(registry, None, start=start)
    publish(registry, a, 2)
    registry.complete(a)
    assert seqs(registry, None, start=start)[-1] == (a, 5)
    clock.advance(10)
    assert registry.prune(older_than_sec=1) == [a]
    publish(registry, b, 2)
    assert seqs(registry, None, start=start) == [(b, 1), (b, 2)]
    fresh = registry.subscribe(subscriber="fresh", start="now", timeout_sec=20)
    publish(registry, b, 1)
    assert next(fresh).seq == 3


@pytest.mark.parametrize("begun", [True, False])
def test_a_feed_skips_a_job_that_is_pruned_meanwhile(registry, clock, begun):
    first, pruned, last = (registry.register(agent="a", prompt="").job_id for _ in range(3))
    if begun:  # accepted and not handled: the feed begins with these
        for job_id in (first, pruned, last):
            event = registry.publish(job_id, "progress").payload
            assert registry.accept(event, subscriber="s").verdict == "accepted"
    else:
        for job_id in (first, pruned, last):
            publish(registry, job_id)
    registry.complete(pruned)
    feed = registry.subscribe(subscriber="s", timeout_sec=20)
    assert next(feed).job_id == first
    clock.advance(60)
    assert registry.prune(older_than_sec=30) == [pruned]
    assert next(feed).job_id == last
