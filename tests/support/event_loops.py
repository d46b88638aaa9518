"""Event loops for tests: a fresh one per call, with a limit, and tasks that are let run until they wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from jobdb import AsyncRegistry
from tests.support.waiting import TIMEOUT_SEC, wait_until

_Result = TypeVar("_Result")
WATCHER, WORKER, CLOSER = "jobdb-async-watcher", "jobdb-async_", "jobdb-async-close"


def run(main: Coroutine[Any, Any, _Result], *, timeout_sec: float = TIMEOUT_SEC) -> _Result:
    """Run a coroutine in an event loop of its own; raise TimeoutError if it takes longer."""

    async def limited() -> _Result:
        async with asyncio.timeout(timeout_sec):
            return await main

    return asyncio.run(limited())


async def until(condition: Callable[[], Any], *, limit_sec: float = TIMEOUT_SEC) -> Any:
    """Let other tasks run until ``condition()`` is true; return its value."""
    async with asyncio.timeout(limit_sec):
        while not (found := condition()):
            await asyncio.sleep(0.001)
    return found


async def until_waiting(registry: AsyncRegistry, tasks: int = 1) -> None:
    """Return once so many tasks wait for a change of the database."""
    await until(lambda: len(registry._watcher._waiters) >= tasks)


def thread_names() -> list[str]:
    """Return the names of the threads that asyncio registries have."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("jobdb-async"))


def wait_until_no_threads() -> None:
    """Wait until no thread of an asyncio registry is left."""
    wait_until(lambda: thread_names() == [])
