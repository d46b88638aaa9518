"""Test that a call which the client gives up, at any moment, leaves nothing claimed; and so do servers that end."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobdb import JobStatus, NewJob, Registry
from tests.support.event_loops import run
from tests.support.mcp_client import PROTOCOLS, LineClient, connect, tool
from tests.support.waiting import wait_until

Start = Callable[..., LineClient]
both = pytest.mark.parametrize("protocol", PROTOCOLS)


def status(registry: Registry, job_id: str) -> JobStatus:
    return registry.get(job_id).status


@both
def test_a_claim_that_is_cancelled_while_it_waits_takes_no_job(
    registry: Registry, start_client: Start, protocol: str
) -> None:
    client = start_client(protocol)
    number = client.send_call("claim", wait_sec=60)
    client.notify("notifications/cancelled", requestId=number, reason="enough")
    assert client.call("list")["structuredContent"]["jobs"] == [], "the next answer is that of the next call"
    registry.register(agent="a", prompt="p", job_id="one")
    assert client.call("show", job_id="one")["structuredContent"]["job"]["status"] == "pending"


@both
def test_a_claim_that_is_cancelled_as_it_is_answered_is_released(
    registry: Registry, start_client: Start, protocol: str
) -> None:
    """The client drops an answer to a call that it has cancelled: nobody knows of the claim."""
    registry.register(agent="a", prompt="p", job_id="one")
    client = start_client(protocol)
    number = client.send_call("claim")
    assert client.read_answer()["result"]["structuredContent"]["claimed"]
    client.notify("notifications/cancelled", requestId=str(number))
    wait_until(lambda: status(registry, "one") is JobStatus.PENDING)
    assert registry.get("one").strikes == 0, "no try is used up"


@both
def test_a_claim_that_was_used_is_not_released(registry: Registry, start_client: Start, protocol: str) -> None:
    registry.register(agent="a", prompt="p", job_id="one")
    client = start_client(protocol)
    number = client.send_call("claim")
    client.read_answer()
    client.call("publish", job_id="one", attempt=1, event="started")
    client.notify("notifications/cancelled", requestId=number)
    assert not client.call("publish", job_id="one", attempt=1, event="progress")["isError"]


@both
def test_claims_cancelled_at_random_leave_no_job_claimed(database: Path, registry: Registry, protocol: str) -> None:
    rounds, chance = 40, random.Random(7)
    registry.register_many(NewJob(agent="a", prompt="p", job_id=f"job-{number}") for number in range(3))

    async def main() -> None:
        async with connect(database, protocol) as client:
            # The SDK's client reads the schemas after its first answer; cancelled there, it would drop a claim.
            await client.list_tools()
            for _ in range(rounds):
                kept: list[str] = []

                async def claim(kept: list[str] = kept) -> None:
                    found = await tool(client, "claim", wait_sec=5)
                    kept.append(found["claim"]["job_id"])

                task = asyncio.create_task(claim())
                await asyncio.wait([task], timeout=chance.random() * 0.03)
                task.cancel()
                await asyncio.wait([task])
                for job_id in kept:
                    await tool(client, "release", job_id=job_id, attempt=registry.get(job_id).attempt)
            await asyncio.to_thread(wait_until, lambda: registry.count_by_status()[JobStatus.PENDING] == 3)

    run(main())


@pytest.mark.parametrize("how", ["close", signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_server_that_ends_leaves_no_job_to_a_waiting_call(
    registry: Registry, start_client: Start, how: str | signal.Signals
) -> None:
    client = start_client()
    client.send_call("claim", wait_sec=60)
    assert client.call("list")["structuredContent"]["jobs"] == []
    if isinstance(how, signal.Signals):
        client.process.send_signal(how)
        assert client.process.wait(60) == 128 + how
    else:
        assert client.close() == 0
    registry.register(agent="a", prompt="p", job_id="one")
    assert status(registry, "one") is JobStatus.PENDING
    assert registry.claim(worker="w") is not None
