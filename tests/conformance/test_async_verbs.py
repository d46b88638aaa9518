"""Test waiting and cancelling with asyncio on every engine: tasks are woken, and nothing that was cancelled is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobdb import AsyncRegistry, JobStatus, NewJob
from tests.support.async_scenarios import cancel_claims, cancel_requests
from tests.support.event_loops import run, until_waiting, wait_until_no_threads


def test_tasks_are_woken_by_another_connection(database: Any) -> None:
    async def main() -> None:
        async with AsyncRegistry(database.open()) as one, AsyncRegistry(database.open()) as two:
            claims = [asyncio.create_task(one.claim(worker=f"w{n}", wait_sec=60)) for n in range(3)]
            await until_waiting(one, 3)
            await two.register_many(NewJob(agent="a", prompt="p", job_id=f"job-{n}") for n in range(3))
            claimed = {claim.job_id for claim in await asyncio.gather(*claims) if claim is not None}
            assert claimed == {"job-0", "job-1", "job-2"}
            waits = [asyncio.create_task(one.wait(f"job-{n}")) for n in range(3)]
            follower = one.subscribe("job-0", subscriber="s")
            event = asyncio.ensure_future(anext(follower))
            await until_waiting(one, 4)
            for number in range(3):
                await two.complete(f"job-{number}", attempt=1)
            assert {job.status for job in await asyncio.gather(*waits)} == {JobStatus.COMPLETED}
            assert (await event).seq == 1 and [each async for each in follower] == []

    run(main())
    wait_until_no_threads()


@pytest.mark.parametrize("seed", range(2))
def test_claims_cancelled_at_random_leave_no_job_claimed(database: Any, seed: int) -> None:
    run(cancel_claims(database.url, jobs=3, rounds=60, seed=seed))
    wait_until_no_threads()


@pytest.mark.parametrize("seed", range(2))
def test_requests_cancelled_at_random_lose_no_event(database: Any, seed: int) -> None:
    run(cancel_requests(database.url, events=30, seed=seed))
    wait_until_no_threads()
