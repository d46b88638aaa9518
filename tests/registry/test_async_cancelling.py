"""Test cancelled tasks: they go on at once, a verb that has begun is done whole, and no claim is left over."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import AsyncRegistry, IllegalTransition, JobStatus, Registry
from tests.support.async_scenarios import cancel_claims
from tests.support.event_loops import WATCHER, run, thread_names, until, until_waiting, wait_until_no_threads
from tests.support.processes import module_environment


class Gate:
    """A verb of the engine that is held before or after its transaction until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, registry: Registry, verb: str, *, after: bool) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        real = getattr(registry.engine, verb)

        def held(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options) if after else None
            self.reached.set()
            assert self.open.wait(60)
            return result if after else real(*arguments, **options)

        monkeypatch.setattr(registry.engine, verb, held)


async def is_cancelled(task: asyncio.Task[Any]) -> bool:
    """Cancel a task, and return whether it ends so in its next few steps, without waiting for anything."""
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done() and task.cancelled()


WAITS: dict[str, Callable[[AsyncRegistry], Any]] = {
    "wait": lambda registry: registry.wait("one"),
    "claim": lambda registry: registry.claim(worker="w", agent="nobody", wait_sec=1000),
    "subscribe": lambda registry: anext(registry.subscribe("one", subscriber="s")),
    "subscribe to all": lambda registry: anext(registry.subscribe(subscriber="s")),
}


@pytest.mark.parametrize("verb", WAITS)
def test_a_cancelled_wait_ends_at_once_and_leaves_no_thread(database: Path, verb: str) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            tasks = [asyncio.create_task(WAITS[verb](registry)) for _ in range(20)]
            await until_waiting(registry, 20)
            assert thread_names().count(WATCHER) == 1
            for task in tasks:
                assert await is_cancelled(task)
            assert not registry._watcher._waiters
            await until(lambda: WATCHER not in thread_names())
            assert registry._threads._executor._work_queue.qsize() == 0

    run(main())
    wait_until_no_threads()


@pytest.mark.parametrize("verb", WAITS)
def test_a_time_limit_ends_a_wait(database: Path, verb: str) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await WAITS[verb](registry)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(WAITS[verb](registry), 0.05)
            await until(lambda: WATCHER not in thread_names())

    run(main())


def test_a_task_group_that_fails_cancels_its_waits(database: Path) -> None:
    async def fail(registry: AsyncRegistry) -> None:
        await until_waiting(registry, 4)
        raise LookupError("a sibling has failed")

    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            with pytest.raises(ExceptionGroup) as raised:
                async with asyncio.TaskGroup() as group:
                    for verb in WAITS.values():
                        group.create_task(_await(verb(registry)))
                    group.create_task(fail(registry))
            assert raised.group_contains(LookupError)
            assert not registry._watcher._waiters

    run(main())
    wait_until_no_threads()


async def _await(awaitable: Any) -> Any:
    return await awaitable


def test_a_cancelled_verb_that_has_begun_is_done_whole(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            gate = Gate(monkeypatch, registry.registry, "register", after=False)
            task = asyncio.create_task(registry.register(agent="a", prompt="p", job_id="one"))
            await until(gate.reached.is_set)
            assert await is_cancelled(task)
            gate.open.set()

    run(main())
    with Registry.open(database) as registry:
        assert registry.get("one").status is JobStatus.PENDING


def test_a_cancelled_verb_that_has_not_begun_is_not_done(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            gate = Gate(monkeypatch, registry.registry, "count_by_status", after=False)
            occupied = [asyncio.create_task(registry.count_by_status()) for _ in range(8)]
            await until(gate.reached.is_set)
            task = asyncio.create_task(registry.register(agent="a", prompt="p", job_id="one"))
            claim = asyncio.create_task(registry.claim(worker="w"))
            await asyncio.sleep(0)
            assert await is_cancelled(task) and await is_cancelled(claim)
            gate.open.set()
            await asyncio.gather(*occupied)
            assert await registry.jobs() == []

    run(main())


@pytest.mark.parametrize("after", [False, True])
def test_a_claim_that_runs_when_its_task_is_cancelled_is_released(
    database: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            gate = Gate(monkeypatch, registry.registry, "claim", after=after)
            task = asyncio.create_task(registry.claim(worker="w", lease_sec=None))
            await until(gate.reached.is_set)
            assert await is_cancelled(task)
            gate.open.set()
            await until(lambda: not registry._threads._unreceived)
            job = await registry.get("one")
            assert (job.status, job.attempt) == (JobStatus.PENDING, 1)

    run(main())


def cancel_with_the_wakeup(task: asyncio.Task[Any]) -> None:
    """Cancel a task in the moment between the end of its call in a thread and its next step."""
    loop = asyncio.get_running_loop()
    real = loop.call_soon_threadsafe

    def call_soon_threadsafe(call: Callable[..., object], *arguments: Any, **options: Any) -> asyncio.Handle:
        def both() -> None:
            call(*arguments)
            task.cancel()

        return real(both, **options)

    loop.call_soon_threadsafe = call_soon_threadsafe  # type: ignore[method-assign]


def test_a_claim_that_its_task_has_not_received_yet_is_released(database: Path) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            task = asyncio.create_task(registry.claim(worker="w"))
            cancel_with_the_wakeup(task)
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not registry._threads._unreceived)
            job = await registry.get("one")
            assert (job.status, job.attempt) == (JobStatus.PENDING, 1)

    run(main())


def test_closing_releases_a_claim_that_its_task_has_not_received_yet(database: Path) -> None:
    """The task is woken only after the registry has been closed."""

    async def main() -> None:
        registry = await AsyncRegistry.open(database)
        await registry.register(agent="a", prompt="p", job_id="one")
        task = asyncio.create_task(registry.claim(worker="w"))
        await asyncio.sleep(0)
        registry._close(True)  # blocks the event loop
        with pytest.raises(Exception, match="is closed"):
            await task

    run(main())
    with Registry.open(database) as registry:
        job = registry.get("one")
        assert (job.status, job.attempt) == (JobStatus.PENDING, 1)


def test_a_cancelled_claim_that_fails_raises_nothing_later(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            job = await registry.register(agent="a", prompt="p")
            await registry.complete(job.job_id)
            gate = Gate(monkeypatch, registry.registry, "claim", after=False)
            task = asyncio.create_task(registry.claim(worker="w", job_id=job.job_id))
            await until(gate.reached.is_set)
            assert await is_cancelled(task)
            gate.open.set()
            await until(lambda: not registry._threads._unreceived)
            with pytest.raises(IllegalTransition):
                await registry.claim(worker="w", job_id=job.job_id)

    run(main())
    assert caplog.records == []


def test_a_claim_that_was_lost_meanwhile_need_not_be_released(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            gate = Gate(monkeypatch, registry.registry, "claim", after=True)
            task = asyncio.create_task(registry.claim(worker="w"))
            await until(gate.reached.is_set)
            task.cancel()
            await registry.cancel("one")
            gate.open.set()
            await until(lambda: not registry._threads._unreceived)
            assert (await registry.get("one")).status is JobStatus.CANCELLED

    run(main())
    assert caplog.records == []


def test_a_release_that_fails_is_logged(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise OSError("the disk has failed")

    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            monkeypatch.setattr(registry.registry.engine, "release", fail)
            task = asyncio.create_task(registry.claim(worker="w"))
            cancel_with_the_wakeup(task)
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not registry._threads._unreceived)

    run(main())
    [record] = caplog.records
    assert record.name == "jobdb.asyncio" and "registry.release('one', attempt=1)" in record.getMessage()


@pytest.mark.parametrize("seed", range(4))
def test_claims_cancelled_at_random_leave_no_job_claimed(database: Path, seed: int) -> None:
    run(cancel_claims(f"sqlite:///{database}", jobs=3, rounds=100, seed=seed))
    wait_until_no_threads()


def test_an_opening_that_is_cancelled_leaves_nothing_open(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Registry] = []
    began, may_end = threading.Event(), threading.Event()
    open_registry = Registry.open

    def slow_open(*arguments: Any, **options: Any) -> Registry:
        began.set()
        assert may_end.wait(60)
        opened.append(open_registry(*arguments, **options))
        return opened[0]

    async def main() -> None:
        opening = AsyncRegistry.open(database)
        monkeypatch.setattr(opening, "_open_registry", lambda: slow_open(database))
        task = asyncio.create_task(_await(opening))
        await until(began.is_set)
        assert await is_cancelled(task)
        may_end.set()

    run(main())
    wait_until_no_threads()
    with pytest.raises(Exception, match="is closed"):
        opened[0].get("one")


# -- the end of event loops and processes


def test_an_event_loop_ends_with_pending_waits(database: Path) -> None:
    async def main() -> AsyncRegistry:
        registry = await AsyncRegistry.open(database)
        await registry.register(agent="a", prompt="p", job_id="one")
        tasks = [asyncio.create_task(_await(verb(registry))) for verb in WAITS.values()]
        await until_waiting(registry, len(tasks))
        return registry

    registry = run(main())  # cancels the tasks
    assert not registry._watcher._waiters
    run(registry.aclose())
    wait_until_no_threads()


ABANDONED = """
import asyncio, sys
from jobdb import AsyncRegistry

async def main():
    registry = await AsyncRegistry.open(sys.argv[1])
    await registry.register(agent="a", prompt="p", job_id="one")
    kept.append(asyncio.ensure_future(registry.wait("one")))
    kept.append(asyncio.ensure_future(registry.claim(worker="w", agent="nobody", wait_sec=1000)))
    while len(registry._watcher._waiters) < 2:
        await asyncio.sleep(0.001)
    kept.append(registry)

kept = []
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
if sys.argv[2] == "close":
    loop.close()
print("the last line", flush=True)
"""


@pytest.mark.parametrize("end", ["close", "leave"])
def test_a_process_ends_although_nothing_was_closed(database: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ABANDONED, str(database), end],
        env=module_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "the last line\n"), done.stderr
    assert "Traceback" not in done.stderr and "Fatal" not in done.stderr, done.stderr
    with Registry.open(database) as registry:
        assert registry.get("one").status is JobStatus.PENDING
