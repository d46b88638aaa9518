"""Test the asyncio face: it has the verbs of the synchronous one, gives its answers, and needs few threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import (
    AsyncRegistry,
    DatabaseReplaced,
    InvalidInput,
    JobStatus,
    NewEvent,
    NewJob,
    Registry,
    TimedOut,
    UnknownJob,
    WorkBatch,
    WorkerInfo,
)
from jobdb.registry.async_follower import AsyncFollower
from jobdb.registry.asynchronous import AsyncTokens
from jobdb.registry.follower import Follower
from jobdb.registry.tokens import Tokens
from jobdb.registry.verb_threads import MAX_THREADS
from tests.support.clocks import ManualClock
from tests.support.event_loops import WATCHER, run, thread_names, until, until_waiting, wait_until_no_threads
from tests.support.forks import REFUSED, run_in_child
from tests.support.keys import vault
from tests.support.threads import run_in_threads

FACES = [(Registry, AsyncRegistry), (Tokens, AsyncTokens)]


def verbs(found: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(found, inspect.isroutine) if not name.startswith("_")}


@pytest.mark.parametrize(("sync", "face"), FACES)
def test_every_verb_is_there_with_the_same_signature(sync: type, face: type) -> None:
    wanted, found = verbs(sync), verbs(face)
    if sync is Registry:
        wanted["aclose"] = wanted.pop("close")
    assert sorted(found) == sorted(wanted)
    for name, verb in wanted.items():
        parameters = inspect.signature(verb).parameters, inspect.signature(found[name]).parameters
        assert list(parameters[0].items()) == list(parameters[1].items()), name
        assert name == "aclose" or inspect.getdoc(verb) == inspect.getdoc(found[name]), name


def test_the_follower_has_the_methods_of_the_synchronous_one() -> None:
    assert verbs(AsyncFollower).keys() - {"aclose"} == verbs(Follower).keys()


def test_verbs_are_awaited_or_iterated() -> None:
    iterated = {"open", "all_jobs", "all_events", "subscribe", "working"}
    for face in (AsyncRegistry, AsyncTokens):
        for name, verb in verbs(face).items():
            assert inspect.iscoroutinefunction(verb) == (name not in iterated), name


WORKER = WorkerInfo(
    worker_id="w1",
    name="host1:7",
    agent=None,
    host="host1",
    machine="m",
    boot_id="b",
    pid_namespace="4026531836",
    pid=7,
    pid_started=1,
    slots=2,
    log_dir=None,
    lease_sec=60,
)
DONE = NewEvent(job_id="one", event="completed", attempt=7)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("register", (), {"agent": "a", "prompt": "p", "job_id": "one", "auth_token": "t" * 40}),
    ("register_many", ([NewJob(agent="b", prompt="p", job_id="two", auth_token="u" * 40)],), {}),
    ("get", ("one",), {}),
    ("get", ("missing",), {}),
    ("jobs", (), {"limit": 1}),
    ("all_jobs", (), {"page_size": 1}),
    ("all_jobs", (), {"page_size": 0}),
    ("count_by_status", (), {}),
    ("claim", (), {"worker": "w", "agent": "a"}),
    ("claim", (), {"worker": "w", "agent": "nobody", "wait_sec": 0.001}),
    ("claim", (), {"worker": "w", "job_id": "one"}),
    ("renew", ("one",), {"attempt": 1}),
    ("release", ("one",), {"attempt": 1}),
    ("release", ("one",), {"attempt": 1}),
    ("publish", ("one", "progress"), {"detail": "d"}),
    ("publish_many", ([NewEvent(job_id="one", event="progress")],), {}),
    ("events", ("one",), {}),
    ("all_events", ("one",), {"page_size": 1}),
    ("ask", ("one", "may I?"), {"key": "k"}),
    ("questions", (), {}),
    ("wait_for_answer", ("one", "k"), {"timeout_sec": 0.001}),
    ("answer", ("one", "allow"), {"by": "ann"}),
    ("wait_for_answer", ("one", "k"), {}),
    ("wait", ("one",), {"timeout_sec": 0.001}),
    ("complete", ("one",), {}),
    ("fail", ("two",), {}),
    ("cancel", ("two",), {}),
    ("wait", ("one",), {"timeout_sec": 5}),
    ("subscribe", ("one",), {"subscriber": "s"}),
    ("subscribe", ("missing",), {"subscriber": "s"}),
    ("subscribe", (), {"subscriber": "feed", "start": "now", "timeout_sec": 0.001}),
    ("subscriptions", (), {}),
    ("accept", (b"{}",), {"subscriber": "s"}),
    ("accept_many", ([b"{}"],), {"subscriber": "s"}),
    ("refusals", (), {}),
    ("verdict_counts", (), {}),
    ("reap", (), {}),
    ("prune", (), {"older_than_sec": 1}),
    ("add_worker", (WORKER,), {}),
    ("workers", (), {}),
    ("work_batch", (WorkBatch(worker_id="w1", worker="host1:7", claim=2, events=(DONE,)),), {}),
    ("claim_states", ([("one", 1), ("two", 1)],), {}),
    ("attempts", ("one",), {}),
    ("working", ("no claim",), {}),
    ("return_jobs_of_dead_workers", (WORKER,), {"dead": ["w1"]}),
    ("remove_worker", ("w1",), {}),
    ("tokens.show", ("one",), {}),
    ("tokens.current", ("one",), {}),
    ("tokens.list", ("one",), {}),
    ("tokens.rotate", ("one",), {}),
    ("tokens.revoke", ("one", 1), {}),
    ("tokens.rekey", ("no vault",), {}),
]


def bound(registry: Any, name: str) -> Any:
    for part in name.split("."):
        registry = getattr(registry, part)
    return registry


def answer(call: tuple[str, tuple[Any, ...], dict[str, Any]], registry: Registry) -> Any:
    name, arguments, options = call
    try:
        found = bound(registry, name)(*arguments, **options)
        return list(found) if isinstance(found, Iterator) else found
    except Exception as error:
        return type(error), str(error)


async def async_answer(call: tuple[str, tuple[Any, ...], dict[str, Any]], registry: AsyncRegistry) -> Any:
    name, arguments, options = call
    try:
        found = bound(registry, name)(*arguments, **options)
        return [each async for each in found] if isinstance(found, AsyncIterator) else await found
    except Exception as error:
        return type(error), str(error)


def test_every_verb_gives_the_answers_of_the_synchronous_one(tmp_path: Path) -> None:
    assert {name for name, _arguments, _options in CALLS} >= {
        *(verbs(Registry).keys() - {"open", "close"}),
        *(f"tokens.{name}" for name in verbs(Tokens)),
    }

    async def main() -> list[Any]:
        path = tmp_path / "asynchronous.db"
        async with AsyncRegistry.open(path, create=True, vault=vault(), clock=ManualClock()) as registry:
            assert registry.url.text == f"sqlite:///{path}" and str(registry.url) in repr(registry)
            return [await async_answer(call, registry) for call in CALLS]

    with Registry.open(tmp_path / "synchronous.db", create=True, vault=vault(), clock=ManualClock()) as registry:
        expected = [answer(call, registry) for call in CALLS]
    for call, one, two in zip(CALLS, expected, run(main()), strict=True):
        assert repr(one) == repr(two), call


# -- opening and closing


def test_a_registry_is_opened_by_entering_or_by_awaiting(database: Path) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
        registry = await AsyncRegistry.open(str(database))
        async with registry as same:
            assert same is registry and (await same.get("one")).agent == "a"
        async with await AsyncRegistry.open(database) as registry:
            assert len(await registry.jobs()) == 1
        async with AsyncRegistry(Registry.open(database)) as registry:
            assert registry.registry.get("one") == await registry.get("one")

    run(main())
    wait_until_no_threads()


def test_an_error_of_opening_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(InvalidInput, match="durability"):
            async with AsyncRegistry.open(tmp_path / "jobs.db", create=True, durability="no"):
                pass
        with pytest.raises(TypeError):
            await AsyncRegistry.open(tmp_path / "jobs.db", nonsense=1)

    run(main())
    wait_until_no_threads()
    assert list(tmp_path.iterdir()) == []


def test_closing_ends_waits_and_refuses_verbs(database: Path) -> None:
    async def main() -> None:
        registry = await AsyncRegistry.open(database)
        await registry.register(agent="a", prompt="p", job_id="one")
        waits = [
            asyncio.create_task(registry.wait("one")),
            asyncio.create_task(registry.claim(worker="w", agent="nobody", wait_sec=1000)),
            asyncio.create_task(anext(registry.subscribe("one", subscriber="s"))),
        ]
        await until_waiting(registry, 3)
        await asyncio.gather(registry.aclose(), registry.aclose())
        for ended in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(ended, InvalidInput) and "is closed" in str(ended)
        for verb in (registry.get("one"), registry.wait("one"), anext(registry.all_jobs())):
            with pytest.raises(InvalidInput, match="is closed"):
                await verb
        await registry.aclose()

    run(main())
    wait_until_no_threads()


def test_a_cancelled_closing_closes_nevertheless(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, may_end = threading.Event(), threading.Event()
    close = Registry.close

    def slow_close(registry: Registry, **options: Any) -> None:
        began.set()
        assert may_end.wait(60)
        close(registry, **options)

    monkeypatch.setattr(Registry, "close", slow_close)

    async def main() -> None:
        registry = await AsyncRegistry.open(database)
        task = asyncio.create_task(registry.aclose())
        await until(began.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_end.set()
        await registry.aclose()
        with pytest.raises(InvalidInput, match="is closed"):
            registry.registry.get("one")

    run(main())
    wait_until_no_threads()


def test_verbs_that_were_called_before_the_closing_are_done(database: Path) -> None:
    async def main() -> None:
        registry = await AsyncRegistry.open(database)
        tasks = [
            asyncio.create_task(registry.register(agent="a", prompt="p", job_id=f"job-{number}"))
            for number in range(50)
        ]
        await asyncio.sleep(0)
        await registry.aclose()
        assert {job.job_id for job in await asyncio.gather(*tasks)} == {f"job-{number}" for number in range(50)}

    run(main())
    with Registry.open(database) as registry:
        assert registry.count_by_status()[JobStatus.PENDING] == 50


# -- threads, loops and processes


def test_two_hundred_waits_need_few_threads(database: Path) -> None:
    most = 0

    async def main() -> None:
        nonlocal most
        async with AsyncRegistry.open(database) as registry:
            await registry.register_many(NewJob(agent="a", prompt="p", job_id=f"job-{n}") for n in range(200))
            waits = [asyncio.create_task(registry.wait(f"job-{number}")) for number in range(200)]
            await until_waiting(registry, 200)
            assert thread_names().count(WATCHER) == 1
            for number in range(200):
                await registry.complete(f"job-{number}")
                most = max(most, len(thread_names()))
            assert {job.status for job in await asyncio.gather(*waits)} == {JobStatus.COMPLETED}
            await until(lambda: WATCHER not in thread_names())

    run(main())
    assert most <= MAX_THREADS + 1
    wait_until_no_threads()


def test_two_event_loops_have_a_registry_each(database: Path) -> None:
    async def complete(own: str, other: str) -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id=own, idempotency_key=own)
            async with asyncio.timeout(60):
                while True:
                    try:
                        await registry.complete(other)
                        break
                    except UnknownJob:
                        await asyncio.sleep(0.001)
                assert (await registry.wait(own)).status is JobStatus.COMPLETED

    assert run_in_threads([lambda: run(complete("one", "two")), lambda: run(complete("two", "one"))]) == []
    wait_until_no_threads()


def test_a_registry_serves_several_event_loops(database: Path) -> None:
    registry = run(opened(database))
    run(registry.register(agent="a", prompt="p", job_id="one"))
    errors = run_in_threads(
        [lambda: run(registry.wait("one", timeout_sec=60))] * 4 + [lambda: run(registry.complete("one"))]
    )
    assert errors == []
    run(registry.aclose())
    wait_until_no_threads()


async def opened(database: Path) -> AsyncRegistry:
    return await AsyncRegistry.open(database)


def test_a_forked_child_is_refused_and_the_parent_goes_on(database: Path) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            waiting = asyncio.create_task(registry.wait("one"))
            await until_waiting(registry)
            codes = await asyncio.to_thread(in_children, registry)
            assert codes == [REFUSED, REFUSED, 0]
            await registry.complete("one")
            await waiting

    def in_children(registry: AsyncRegistry) -> list[int]:
        return [
            run_in_child(lambda: asyncio.run(registry.get("one"))),
            run_in_child(lambda: asyncio.run(registry.wait("one"))),
            run_in_child(lambda: asyncio.run(registry.aclose())),
        ]

    run(main())


def test_context_variables_reach_the_thread(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            count = registry.registry.engine.count_by_status
            monkeypatch.setattr(
                registry.registry.engine, "count_by_status", lambda: seen.append(request.get()) or count()
            )
            request.set("a request")
            await registry.count_by_status()

    run(main())
    assert seen == ["a request"]


def test_a_failure_of_the_watcher_reaches_all_who_wait(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            store = registry.registry.store
            failing = threading.Event()
            waits = store.wait_for_change

            def wait_for_change(seen: int, timeout_sec: float, **options: Any) -> int:
                if failing.is_set():
                    raise DatabaseReplaced("the file was replaced")
                return waits(seen, 0.01, **options)

            monkeypatch.setattr(store, "wait_for_change", wait_for_change)
            tasks = [asyncio.create_task(registry.wait("one")) for _ in range(5)]
            await until_waiting(registry, 5)
            failing.set()
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(error, DatabaseReplaced)
            failing.clear()
            with pytest.raises(TimedOut):
                await registry.wait("one", timeout_sec=0.05)

    run(main())


def test_a_missing_notification_is_made_up_for(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's listener cannot know of a writer that died before its NOTIFY: the store returns, and all look."""

    async def main() -> None:
        async with AsyncRegistry.open(database) as registry:
            await registry.register(agent="a", prompt="p", job_id="one")
            monkeypatch.setattr(registry.registry.store, "data_version", lambda: 1)
            monkeypatch.setattr(
                registry.registry.store, "wait_for_change", lambda seen, _sec, wake: (wake.wait(0.01) and 1) or 1
            )
            waiting = asyncio.create_task(registry.wait("one"))
            await until_waiting(registry)
            await registry.complete("one")
            assert (await waiting).status is JobStatus.COMPLETED

    run(main())
