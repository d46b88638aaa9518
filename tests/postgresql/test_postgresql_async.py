"""Test the asyncio face on PostgreSQL: waits across a restart and an outage, and notifications that never come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobdb import AsyncRegistry, JobStatus, Unavailable
from jobdb.engines.postgresql import store
from tests.support.event_loops import run, until_waiting, wait_until_no_threads
from tests.support.postgresql.server import PostgresServer


def test_waits_survive_a_restart(killable_server: PostgresServer) -> None:
    async def main() -> None:
        async with (
            AsyncRegistry.open(killable_server.url(), create=True) as registry,
            AsyncRegistry.open(killable_server.url()) as other,
        ):
            await registry.register(agent="a", prompt="", job_id="j")
            waits = [asyncio.create_task(registry.wait("j", timeout_sec=60)) for _ in range(20)]
            event = asyncio.ensure_future(anext(registry.subscribe("j", subscriber="s", timeout_sec=60)))
            await until_waiting(registry, 21)
            await asyncio.to_thread(killable_server.kill)
            await asyncio.to_thread(killable_server.start)
            await other.complete("j")
            assert {job.status for job in await asyncio.gather(*waits)} == {JobStatus.COMPLETED}
            assert (await event).event == "completed"

    run(main())
    wait_until_no_threads()


def test_an_outage_reaches_the_task_and_a_cancelled_one_does_not_wait_for_it(killable_server: PostgresServer) -> None:
    async def main() -> None:
        async with AsyncRegistry.open(killable_server.url(), create=True, busy_timeout_sec=1) as registry:
            await registry.register(agent="a", prompt="", job_id="j")
            await asyncio.to_thread(killable_server.kill)
            task = asyncio.create_task(registry.get("j"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            assert task.cancelled()
            with pytest.raises(Unavailable):
                await registry.get("j")
            await asyncio.to_thread(killable_server.start)
            assert (await registry.get("j")).status is JobStatus.PENDING

    run(main())


def test_a_missing_notification_is_made_up_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a writer that died between its commit and its NOTIFY."""
    monkeypatch.setattr(store, "MAX_WAIT_SEC", 0.2)
    notify = store.DIALECT.notify_commit
    monkeypatch.setitem(store.FORMS, notify, store.FORMS[notify]._replace(text=b"SELECT 1"))

    async def main() -> None:
        async with AsyncRegistry.open(url, create=True) as registry:
            await registry.register(agent="a", prompt="", job_id="j")
            waits: list[Any] = [asyncio.create_task(registry.wait("j", timeout_sec=60)) for _ in range(5)]
            await until_waiting(registry, 5)
            await registry.complete("j")
            assert {job.status for job in await asyncio.gather(*waits)} == {JobStatus.COMPLETED}

    run(main(), timeout_sec=30)
