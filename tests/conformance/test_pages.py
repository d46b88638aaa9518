"""Test pages of jobs, events, refusals and subscriptions, and the iterators over all of them, on every engine."""

from __future__ import annotations

import pytest

from jobdb import InvalidInput, NewEvent, NewJob, Page, Registry, UnknownJob


@pytest.fixture
def events(registry: Registry) -> str:
    """A job with seven events."""
    registry.register(agent="a", prompt="p", job_id="j")
    registry.publish_many([NewEvent(job_id="j", event="progress", detail=str(seq)) for seq in range(1, 8)])
    return "j"


def test_each_page_of_jobs_leads_to_the_next(registry: Registry) -> None:
    ids = [f"job-{number}" for number in range(7)]
    registry.register_many([NewJob(agent="a", prompt="p", job_id=job_id) for job_id in ids])
    page, shown = registry.jobs(limit=3), []
    assert (page.has_more, page.next_after) == (True, "job-4")
    shown += page
    while page.has_more:
        page = registry.jobs(limit=3, after=page.next_after)
        shown += page
    assert [job.job_id for job in shown] == ids[::-1] and page.next_after is None
    for limit in (7, 8):
        page = registry.jobs(limit=limit)
        assert len(page) == 7 and (page.has_more, page.next_after) == (False, None)
    assert registry.jobs(limit=6).has_more and registry.jobs(limit=10_000) == page
    assert registry.jobs(agent="b") == [] and not registry.jobs(agent="b").has_more
    assert isinstance(page, list) and isinstance(page, Page)


def test_each_page_of_events_leads_to_the_next(registry: Registry, events: str) -> None:
    page, shown = registry.events(events, limit=3), []
    assert ([event.seq for event in page], page.has_more, page.next_after) == ([1, 2, 3], True, 3)
    shown += page
    while page.next_after is not None:
        page = registry.events(events, limit=3, after=page.next_after)
        shown += page
    assert [event.seq for event in shown] == [1, 2, 3, 4, 5, 6, 7] and not page.has_more
    assert not registry.events(events, limit=7).has_more and registry.events(events, limit=6).next_after == 6


@pytest.mark.parametrize("page_size", [1, 3, 7, 100])
def test_all_events_shows_each_event_once(registry: Registry, events: str, page_size: int) -> None:
    assert [event.seq for event in registry.all_events(events, page_size=page_size)] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.seq for event in registry.all_events(events, after=5, page_size=page_size)] == [6, 7]
    assert list(registry.all_events(events, after=7, page_size=page_size)) == []


def test_all_events_includes_events_published_meanwhile(registry: Registry, events: str) -> None:
    every = registry.all_events(events, page_size=3)
    assert next(every).seq == 1
    registry.complete(events)
    assert [event.seq for event in every] == [2, 3, 4, 5, 6, 7, 8]


def test_all_events_reads_a_page_at_a_time(registry: Registry, events: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    original = registry.engine.events

    def events_of(job_id: str, *, after: int, limit: int) -> object:
        read.append((after, limit))
        return original(job_id, after=after, limit=limit)

    monkeypatch.setattr(registry.engine, "events", events_of)
    every = registry.all_events(events, page_size=3)
    assert read == []
    for _ in range(3):
        next(every)
    assert read == [(0, 4)]
    assert len(list(every)) == 4 and read == [(0, 4), (3, 4), (6, 4)]


def test_all_events_distinguishes_a_pruned_job_from_an_ended_one(registry: Registry, events: str, clock) -> None:
    every = registry.all_events(events, page_size=3)
    assert next(every).seq == 1
    registry.complete(events)
    clock.advance(60)
    assert registry.prune(older_than_sec=30) == [events]
    assert [next(every).seq, next(every).seq] == [2, 3]
    with pytest.raises(UnknownJob):
        next(every)
    with pytest.raises(UnknownJob):
        next(registry.all_events("other"))


def test_all_jobs_raises_when_a_whole_page_was_pruned(registry: Registry, clock) -> None:
    ids = [registry.register(agent="a", prompt="").job_id for _ in range(5)]
    every = registry.all_jobs(page_size=2)
    shown = [next(every).job_id, next(every).job_id]
    for job_id in shown:
        registry.cancel(job_id)
    clock.advance(60)
    registry.prune(older_than_sec=30)
    assert shown == ids[:2:-1]
    with pytest.raises(UnknownJob):
        next(every)


def test_pages_of_refusals_and_subscriptions(registry: Registry, events: str) -> None:
    payloads = [event.payload for event in registry.events(events)]
    registry.accept(payloads[-1], subscriber="s")
    registry.accept_many(payloads[:5], subscriber="s")
    page = registry.refusals(limit=2)
    assert ([refusal.seq for refusal in page], page.has_more) == ([5, 4], True)
    following = registry.refusals(limit=2, after=page.next_after)
    assert ([refusal.seq for refusal in following], following.has_more) == ([3, 2], True)
    last = registry.refusals(job_id=events, limit=2, after=following.next_after)
    assert ([refusal.seq for refusal in last], last.has_more, last.next_after) == ([1], False, None)
    registry.accept(payloads[0], subscriber="t")
    one = registry.subscriptions(limit=1)
    assert ([each.subscriber for each in one], one.has_more, one.next_after) == (["s"], True, None)
    assert not registry.subscriptions(limit=2).has_more
    for bad in (-1, "5", 1.5, True):
        with pytest.raises(InvalidInput):
            registry.refusals(after=bad)  # type: ignore[arg-type]
