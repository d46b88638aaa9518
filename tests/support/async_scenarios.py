"""Scenarios of cancelled tasks, for any engine: what must hold is checked against the database afterwards."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from jobdb import AsyncRegistry, Claim, Event, JobStatus, NewEvent, NewJob
from tests.support.event_loops import until


async def cancel_claims(url: str, *, jobs: int, rounds: int, seed: int) -> None:
    """Cancel claims at random moments; check that no job stays claimed for a task that did not receive it."""
    chance = random.Random(seed)
    received: list[Claim] = []
    cancelled = 0

    async def work(registry: AsyncRegistry, number: int) -> None:
        wait_sec = chance.choice((0, 0, 30))
        claim = await registry.claim(worker=f"w{number}", wait_sec=wait_sec, lease_sec=chance.choice((None, 600)))
        if claim is not None:
            received.append(claim)

    async with AsyncRegistry.open(url) as registry:
        await registry.register_many(NewJob(agent="a", prompt="p", job_id=f"job-{n}") for n in range(jobs))
        for _ in range(rounds):
            tasks = [asyncio.create_task(work(registry, number)) for number in range(chance.randrange(1, 5))]
            for task in tasks:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                if chance.random() < 0.8:
                    await asyncio.sleep(chance.random() * 0.004)
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled += sum(isinstance(each, asyncio.CancelledError) for each in ended)
            while received and chance.random() < 0.9:
                claim = received.pop()
                await registry.release(claim.job_id, attempt=claim.attempt)
        held = {claim.job_id for claim in received}
        await until(lambda: not registry._threads._unreceived)
        running = {job.job_id async for job in registry.all_jobs(status="running")}
        assert running == held
        jobs_by_id = {job.job_id: job async for job in registry.all_jobs()}
        attempts = sum(job.attempt for job in jobs_by_id.values())
    assert cancelled > rounds / 10, "the moments were badly chosen"
    assert attempts > cancelled / 20, "the moments were badly chosen"


async def cancel_requests(url: str, *, events: int, seed: int) -> None:
    """Cancel requests for the next event at random moments; check that each event is yielded, and that none is marked
    as handled before the request after it."""
    chance = random.Random(seed)
    seen: list[Event] = []

    async def publish(registry: AsyncRegistry) -> None:
        left = events
        while left:
            batch = min(left, chance.randrange(1, 4))
            await registry.publish_many([NewEvent(job_id="one", event="progress")] * batch)
            left -= batch
            await asyncio.sleep(chance.random() * 0.004)
        await registry.complete("one")

    async with AsyncRegistry.open(url) as registry:
        await registry.register(agent="a", prompt="p", job_id="one")
        async with asyncio.TaskGroup() as group:
            group.create_task(publish(registry))
            follower = registry.subscribe("one", subscriber="s")
            while follower.outcome is None:
                with suppress(TimeoutError, StopAsyncIteration):
                    async with asyncio.timeout(chance.random() * 0.003):
                        event = await anext(follower)
                        seen.append(event)
                if seen and chance.random() < 0.1:
                    [position] = await registry.subscriptions()
                    # A request has been made after the last event, or it is not marked yet: never is one beyond it.
                    assert position.handled_seq <= seen[-1].seq
                if chance.random() < 0.02:  # a restart: whatever was not handled comes again
                    await follower.aclose()
                    [position] = await registry.subscriptions() or [None]
                    follower = registry.subscribe("one", subscriber="s")
                    if position is not None:
                        seen = seen[: position.handled_seq]
        assert follower.outcome.status is JobStatus.COMPLETED
        assert [event.seq for event in seen] == list(range(1, events + 2))
        assert (await registry.subscriptions())[0].handled_seq == events + 1
