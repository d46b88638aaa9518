"""Test the asynchronous iterator over events: at least once, in order, whatever is cancelled or left early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobdb import AsyncRegistry, Busy, InvalidInput, JobStatus, NewEvent, TimedOut, UnknownJob
from tests.support.async_scenarios import cancel_requests
from tests.support.event_loops import WATCHER, run, thread_names, until, until_waiting, wait_until_no_threads


@asynccontextmanager
async def registry_with_events(database: Path, events: int) -> AsyncIterator[AsyncRegistry]:
    """A registry with the job "one", which has so many events."""
    async with AsyncRegistry.open(database) as registry:
        await registry.register(agent="a", prompt="p", job_id="one")
        await registry.publish_many([NewEvent(job_id="one", event="progress")] * events)
        yield registry


async def handled_seq(registry: AsyncRegistry) -> int:
    [position] = await registry.subscriptions(subscriber="s")
    return position.handled_seq


def test_an_event_is_handled_when_the_next_is_requested(database: Path) -> None:
    async def main() -> None:
        async with registry_with_events(database, 2) as registry:
            follower = registry.subscribe("one", subscriber="s")
            assert (await anext(follower)).seq == 1 and await handled_seq(registry) == 0
            assert (await anext(follower)).seq == 2 and await handled_seq(registry) == 1
            await follower.handled()
            assert await handled_seq(registry) == 2
            await follower.handled()
            assert follower.outcome is None
            await registry.complete("one")
            assert [event.seq async for event in follower] == [3]
            assert await handled_seq(registry) == 3
            assert follower.outcome is not None and follower.outcome.status is JobStatus.COMPLETED
            assert [event async for event in follower] == []

    run(main())


def test_an_event_whose_handler_is_cancelled_comes_again(database: Path) -> None:
    seen: list[int] = []

    async def handle(registry: AsyncRegistry) -> None:
        async for event in registry.subscribe("one", subscriber="s"):
            seen.append(event.seq)
            if event.seq == 2:
                await asyncio.sleep(1000)

    async def main() -> None:
        async with registry_with_events(database, 3) as registry:
            task = asyncio.create_task(handle(registry))
            await until(lambda: 2 in seen)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await handled_seq(registry) == 1
            assert (await anext(registry.subscribe("one", subscriber="s"))).seq == 2

    run(main())


def test_a_loop_that_is_left_early_leaves_nothing(database: Path) -> None:
    async def main() -> None:
        async with registry_with_events(database, 3) as registry:
            async for event in registry.subscribe("one", subscriber="s"):
                if event.seq == 2:
                    break
            assert await handled_seq(registry) == 1 and not registry._watcher._waiters
            async with registry.subscribe("one", subscriber="s") as follower:
                assert (await anext(follower)).seq == 2
            assert await handled_seq(registry) == 1
            assert [event async for event in follower] == []
            assert WATCHER not in thread_names()

    run(main())
    wait_until_no_threads()


class HeldSteps:
    """The engine's verb `follow`, held after its transaction until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, registry: AsyncRegistry) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        follow = registry.registry.engine.follow

        def held(*arguments: Any, **options: Any) -> Any:
            found = follow(*arguments, **options)
            self.reached.set()
            assert self.open.wait(60)
            return found

        monkeypatch.setattr(registry.registry.engine, "follow", held)


async def cancel_during_a_step(steps: HeldSteps, request: Any) -> None:
    task = asyncio.ensure_future(request)
    await until(steps.reached.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_request_loses_no_event(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with registry_with_events(database, 2) as registry:
            steps = HeldSteps(monkeypatch, registry)
            follower = registry.subscribe("one", subscriber="s")
            await cancel_during_a_step(steps, anext(follower))
            steps.open.set()
            assert [(await anext(follower)).seq, (await anext(follower)).seq] == [1, 2]
            assert await handled_seq(registry) == 1

    run(main())


def test_handled_does_not_mark_an_event_that_was_not_yielded(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with registry_with_events(database, 1) as registry:
            steps = HeldSteps(monkeypatch, registry)
            follower = registry.subscribe("one", subscriber="s")
            await cancel_during_a_step(steps, anext(follower))
            steps.open.set()
            await follower.handled()
            assert await handled_seq(registry) == 0
            async with follower:
                pass
            assert await handled_seq(registry) == 0

    run(main())


def test_an_error_of_a_cancelled_request_is_raised_by_the_next(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with registry_with_events(database, 1) as registry:
            steps = HeldSteps(monkeypatch, registry)
            follower = registry.subscribe("one", subscriber="s", timeout_sec=0.001)
            await cancel_during_a_step(steps, anext(follower))
            steps.open.set()
            with pytest.raises(TimedOut):
                await anext(follower)

    run(main())


def test_a_wait_that_is_left_over_is_not_waited_for(database: Path) -> None:
    """Its time limit was counted from an earlier moment."""

    async def main() -> None:
        async with registry_with_events(database, 0) as registry:
            follower = registry.subscribe("one", subscriber="s", timeout_sec=0.3)
            task = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0)
            task.cancel()  # the first step, which finds nothing, ends on its own
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: follower._step is not None and follower._step.done())
            await asyncio.sleep(0.3)
            waits: list[float] = []
            store = registry.registry.store
            real = store.wait_for_change
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(store, "wait_for_change", lambda *a, **o: waits.append(a[1]) or real(*a, **o))
                with pytest.raises(TimedOut):
                    await anext(follower)
            assert waits == []

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_requests_cancelled_at_random_lose_no_event(database: Path, seed: int) -> None:
    run(cancel_requests(f"sqlite:///{database}", events=60, seed=seed))
    wait_until_no_threads()


def test_two_tasks_need_an_iterator_each(database: Path) -> None:
    async def main() -> None:
        async with registry_with_events(database, 0) as registry:
            follower = registry.subscribe("one", subscriber="s")
            task = asyncio.ensure_future(anext(follower))
            await until_waiting(registry)
            with pytest.raises(InvalidInput, match="another task"):
                await anext(follower)
            await registry.publish("one", "progress")
            assert (await task).seq == 1

    run(main())


def test_errors_are_those_of_the_synchronous_iterator(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with registry_with_events(database, 1) as registry:
            with pytest.raises(UnknownJob):
                await anext(registry.subscribe("missing", subscriber="s"))
            with pytest.raises(InvalidInput):
                await anext(registry.subscribe("one", subscriber=""))
            with pytest.raises(TimedOut, match="without an event"):
                async for _event in registry.subscribe("one", subscriber="s", idle_timeout_sec=0.02):
                    pass
            follower = registry.subscribe("one", subscriber="s2")
            assert (await anext(follower)).seq == 1
            await registry.publish("one", "progress")
            mark = registry.registry.engine.mark_handled
            monkeypatch.setattr(registry.registry.engine, "mark_handled", raising(Busy("locked", waited_sec=1)))
            with pytest.raises(Busy):
                await anext(follower)
            monkeypatch.setattr(registry.registry.engine, "mark_handled", mark)
            assert (await anext(follower)).seq == 2, "the iteration goes on after an error"

    run(main())


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    return fail


def test_a_feed_is_woken_by_each_event(database: Path) -> None:
    async def main() -> None:
        async with registry_with_events(database, 0) as registry:
            follower = registry.subscribe(subscriber="s")
            for seq in (1, 2, 3):
                task = asyncio.ensure_future(anext(follower))
                await until_waiting(registry)
                await registry.publish("one", "progress")
                assert (await task).seq == seq

    run(main())


def test_pages_are_read_as_they_are_needed(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with registry_with_events(database, 7) as registry:
            pages: list[int] = []
            events = registry.registry.engine.events

            def counted(job_id: str, *, after: int, limit: int) -> Any:
                pages.append(after)
                return events(job_id, after=after, limit=limit)

            monkeypatch.setattr(registry.registry.engine, "events", counted)
            reading = registry.all_events("one", page_size=3)
            assert [(await anext(reading)).seq for _ in range(4)] == [1, 2, 3, 4] and pages == [0, 3]
            assert [event.seq async for event in reading] == [5, 6, 7] and pages == [0, 3, 6]
            assert [job.job_id async for job in registry.all_jobs(page_size=1)] == ["one"]

    run(main())
