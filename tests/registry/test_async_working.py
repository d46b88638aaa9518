"""Test the block that keeps a claim alive in an event loop: renewed, cancelled when the claim is gone, ended once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobdb import AsyncRegistry, Busy, Claim, InvalidInput, JobStatus, Registry, StaleAttempt
from jobdb.registry.async_working import Heartbeats
from jobdb.work import RetryLater
from tests.support.event_loops import run, thread_names, until, wait_until_no_threads

HEARTBEAT = "jobdb-async-heartbeat"


@asynccontextmanager
async def claimed(database: Path, **options: Any) -> AsyncIterator[tuple[AsyncRegistry, Claim]]:
    """A registry, and a claim of the job "one" in it."""
    async with AsyncRegistry.open(database) as registry:
        await registry.register(agent="a", prompt="p", job_id="one", **options)
        claim = await registry.claim(worker="w", lease_sec=600)
        assert claim is not None
        yield registry, claim


def job(database: Path) -> tuple[JobStatus, int, str | None]:
    with Registry.open(database) as registry:
        found = registry.get("one")
        return found.status, found.strikes, found.detail


def test_the_end_of_the_block_completes_the_job(database: Path) -> None:
    async def main() -> None:
        async with claimed(database) as (registry, claim):
            block = registry.working(claim)
            async with block as work:
                assert (work.job.job_id, work.attempt, work.cancelled, work.reason) == ("one", 1, False, None)
                assert work.claim is claim and "one" in repr(work) and block.outcome is None
                await work.progress("half of it", pct=50)
                work.set_result("all sorted", {"files": 3})
            assert block.outcome == "completed"
            events = await registry.events("one")
            assert [(event.event, event.detail) for event in events] == [
                ("progress", "half of it"),
                ("completed", "all sorted"),
            ]

    run(main())
    wait_until_no_threads()


def test_an_exception_uses_up_a_try(database: Path) -> None:
    async def main() -> None:
        async with claimed(database, max_attempts=2) as (registry, claim):
            block = registry.working(claim)
            with pytest.raises(LookupError):
                async with block:
                    raise LookupError("no input")
            assert block.outcome == "failed"

    run(main())
    assert job(database)[:2] == (JobStatus.PENDING, 1)


def test_retry_later_gives_back_and_stays_in_the_block(database: Path) -> None:
    async def main() -> None:
        async with claimed(database, max_attempts=1) as (registry, claim):
            block = registry.working(claim)
            async with block:
                raise RetryLater(3600, "the model is overloaded")
            assert block.outcome == "returned"

    run(main())
    assert job(database) == (JobStatus.PENDING, 0, "the model is overloaded")


def test_a_task_that_is_cancelled_gives_its_job_back(database: Path) -> None:
    async def work(registry: AsyncRegistry, claim: Claim, begun: asyncio.Event) -> None:
        async with registry.working(claim):
            begun.set()
            await asyncio.sleep(1000)

    async def main() -> None:
        async with claimed(database, max_attempts=1) as (registry, claim):
            begun = asyncio.Event()
            task = asyncio.create_task(work(registry, claim, begun))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())
    assert job(database)[:2] == (JobStatus.PENDING, 0)


def test_a_task_that_is_cancelled_before_the_block_gives_its_job_back(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, may_end = threading.Event(), threading.Event()

    async def main() -> None:
        async with claimed(database) as (registry, claim):
            renew = registry.registry.engine.renew

            def held(*arguments: Any, **options: Any) -> Any:
                reached.set()
                assert may_end.wait(60)
                return renew(*arguments, **options)

            monkeypatch.setattr(registry.registry.engine, "renew", held)
            task = asyncio.ensure_future(registry.working(claim).__aenter__())
            await until(reached.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            may_end.set()

    run(main())
    assert job(database)[0] is JobStatus.PENDING
    wait_until_no_threads()


@pytest.mark.parametrize("moment", ["during the end", "twice"])
def test_a_cancellation_at_the_end_does_not_lose_the_outcome(
    database: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    reached, may_end = threading.Event(), threading.Event()

    async def work(registry: AsyncRegistry, claim: Claim, begun: asyncio.Event) -> None:
        async with registry.working(claim):
            begun.set()
            if moment == "twice":
                await asyncio.sleep(1000)

    async def main() -> None:
        async with claimed(database) as (registry, claim):
            engine = registry.registry.engine
            for verb in ("publish", "work_batch"):
                monkeypatch.setattr(engine, verb, held(getattr(engine, verb)))
            begun = asyncio.Event()
            task = asyncio.create_task(work(registry, claim, begun))
            await begun.wait()
            if moment == "twice":
                task.cancel()
            await until(reached.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            may_end.set()

    def held(verb: Callable[..., Any]) -> Callable[..., Any]:
        def run_held(*arguments: Any, **options: Any) -> Any:
            reached.set()
            assert may_end.wait(60)
            return verb(*arguments, **options)

        return run_held

    run(main())
    assert job(database)[0] is (JobStatus.PENDING if moment == "twice" else JobStatus.COMPLETED)


def test_a_block_whose_job_is_cancelled_is_cancelled(database: Path) -> None:
    async def main() -> None:
        async with claimed(database) as (registry, claim):
            block = registry.working(claim)
            async with block as work:
                await registry.cancel("one")
                await asyncio.sleep(1000)
            assert block.outcome == "lost" and work.reason == "job one was cancelled"
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0
            await asyncio.sleep(0)  # nothing is left of the cancellation

    run(main())
    wait_until_no_threads()


def test_a_block_with_a_task_group_is_cancelled_as_a_whole(database: Path) -> None:
    ended: list[str] = []

    async def child(name: str) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(name)

    async def main() -> None:
        async with claimed(database) as (registry, claim):
            block = registry.working(claim)
            async with block, asyncio.TaskGroup() as group:
                group.create_task(child("first"))
                group.create_task(child("second"))
                await registry.release("one", attempt=1)
            assert block.outcome == "lost" and sorted(ended) == ["first", "second"]

    run(main())


@pytest.mark.parametrize("where", ["the block", "a task group"])
def test_progress_of_a_lost_claim_ends_the_block(database: Path, where: str) -> None:
    async def report(progress: Callable[[], Any]) -> None:
        while True:
            await progress()

    async def main() -> None:
        async with claimed(database) as (registry, claim):
            block = registry.working(claim)
            async with block as work:
                await registry.release("one", attempt=1)
                if where == "the block":
                    await report(work.progress)
                async with asyncio.TaskGroup() as group:
                    group.create_task(report(work.progress))
                    group.create_task(report(work.progress))
            assert block.outcome == "lost"
            await asyncio.sleep(0)

    run(main())
    assert job(database)[0] is JobStatus.PENDING


def test_a_cancellation_by_others_counts_beside_the_own(database: Path) -> None:
    async def work(registry: AsyncRegistry, claim: Claim) -> None:
        async with registry.working(claim) as work:
            try:
                await registry.cancel("one")
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                assert work.cancelled
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                raise

    async def main() -> None:
        async with claimed(database) as (registry, claim):
            task = asyncio.create_task(work(registry, claim))
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_work_that_was_in_vain_is_told(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Heartbeats, "add", lambda *_arguments: None)  # so that the block does not learn of it

    async def main() -> None:
        async with claimed(database) as (registry, claim):
            with pytest.raises(StaleAttempt, match="its outcome is not recorded"):
                async with registry.working(claim):
                    await registry.release("one", attempt=1)
            with pytest.raises(StaleAttempt):
                async with registry.working(claim):
                    raise AssertionError("the block must not begin")
            with pytest.raises(InvalidInput):
                registry.working("one")  # type: ignore[arg-type]

    run(main())


def test_the_lease_is_renewed_even_while_the_event_loop_is_blocked(database: Path) -> None:
    async def main() -> None:
        async with claimed(database) as (registry, claim):
            async with registry.working(claim, lease_sec=1.5) as work:
                time.sleep(2.2)  # longer than the lease
                assert await registry.reap() == [] and not work.cancelled
            assert (await registry.get("one")).status is JobStatus.COMPLETED

    run(main())


def test_many_blocks_share_one_thread(database: Path) -> None:
    async def work(registry: AsyncRegistry, ready: asyncio.Barrier) -> None:
        claim = await registry.claim(worker="w", lease_sec=600)
        assert claim is not None
        async with registry.working(claim, lease_sec=3):
            await ready.wait()
            assert thread_names().count(HEARTBEAT) == 1
            await asyncio.sleep(1.2)

    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            for number in range(100):
                await registry.register(agent="a", prompt="p", job_id=f"job-{number}")
            ready = asyncio.Barrier(100)
            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(work(registry, ready))
            assert (await registry.count_by_status())[JobStatus.COMPLETED] == 100
            assert {job.attempt async for job in registry.all_jobs()} == {1}
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("jobdb-heartbeat")]
            await until(lambda: HEARTBEAT not in thread_names())

    run(main())
    wait_until_no_threads()


def test_a_failing_end_after_a_cancellation_is_logged(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(registry: AsyncRegistry, claim: Claim, begun: asyncio.Event) -> None:
        async with registry.working(claim, lease_sec=0.6):
            begun.set()
            await asyncio.sleep(1000)

    async def main() -> None:
        async with claimed(database) as (registry, claim):
            begun, failed = asyncio.Event(), threading.Event()
            task = asyncio.create_task(work(registry, claim, begun))
            await begun.wait()

            def busy(*_arguments: Any, **_options: Any) -> Any:
                failed.set()
                raise Busy("the database is locked", waited_sec=0.0)

            monkeypatch.setattr(registry.registry.engine, "work_batch", busy)
            task.cancel()
            await until(failed.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())
    [record] = caplog.records
    assert "job one" in record.getMessage() and "locked" in record.getMessage()


def test_closing_the_registry_ends_the_heartbeats(database: Path) -> None:
    async def main() -> None:
        async with claimed(database) as (registry, claim):
            with pytest.raises(InvalidInput, match="is closed"):
                async with registry.working(claim):
                    await registry.aclose()
            assert HEARTBEAT not in thread_names()

    run(main())
