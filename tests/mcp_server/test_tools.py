"""Test the tools through the SDK's client, with both protocols: what they do, return and refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jobdb import JobStatus, Registry
from jobdb.mcp.schemas import EVENT, JOB, QUESTION
from jobdb.mcp.tools import TOOLS
from tests.support.databases import PostgresDatabase
from tests.support.event_loops import run
from tests.support.keys import MASTER_KEY
from tests.support.mcp_client import PROTOCOLS, connect, refused, tool

NAMES = [
    "register", "claim", "renew", "release", "publish", "complete", "fail", "ask", "questions", "answer", "show",
    "list", "wait", "events",
]  # fmt: skip

both = pytest.mark.parametrize("protocol", PROTOCOLS)


@both
def test_a_job_is_registered_claimed_and_completed_by_tools(database: Path, registry: Registry, protocol: str) -> None:
    async def main() -> None:
        async with connect(database, protocol) as client:
            assert [each.name for each in (await client.list_tools()).tools] == NAMES
            registered = await tool(client, "register", agent="codex", prompt="sort", extra={"a": [1]}, priority=5)
            job_id = registered["job_id"]
            assert registered == registry.get(job_id).as_dict()
            found = await tool(client, "claim", agent="codex", lease_sec=60, wait_sec=10)
            assert found["claimed"] and found["claim"]["job"] == registry.get(job_id).as_dict()
            held = {"job_id": job_id, "attempt": found["claim"]["attempt"]}
            assert await tool(client, "claim") == {"claimed": False, "claim": None}
            event = await tool(client, "publish", event="progress", detail="step 1", data={"pct": 10}, **held)
            assert event == registry.events(job_id)[0].as_dict()
            renewed = await tool(client, "renew", lease_sec=600, **held)
            assert renewed["lease_expires_at"] > found["claim"]["lease_expires_at"]
            waited = await tool(client, "wait", job_id=job_id, wait_sec=0)
            assert not waited["ended"] and waited["job"]["status"] == "running"
            await tool(client, "complete", detail="all sorted", **held)
            waited = await tool(client, "wait", job_id=job_id)
            assert waited == {"ended": True, "job": registry.get(job_id).as_dict()}
            page = await tool(client, "events", job_id=job_id, limit=1)
            assert [each["seq"] for each in page["events"]] == [1] and page["next_after"] == 1
            page = await tool(client, "events", job_id=job_id, after=1)
            assert [each["event"] for each in page["events"]] == ["completed"] and page["next_after"] is None
            assert await tool(client, "show", job_id=job_id) == {"job": waited["job"], "open_questions": []}

    run(main())
    assert (database.parent / "mcp.err").read_text() == ""


def test_jobs_are_listed_with_short_prompts(database: Path, registry: Registry) -> None:
    for number in range(3):
        registry.register(agent="a", prompt="x" * 1000, job_id=f"job-{number}")
    registry.complete("job-0")

    async def main() -> None:
        async with connect(database) as client:
            page = await tool(client, "list", status=["pending"], limit=1, agent="a")
            assert [job["job_id"] for job in page["jobs"]] == ["job-2"] == [page["next_after"]]
            assert page["jobs"][0]["prompt"] == "x" * 300 + "…"
            page = await tool(client, "list", after="job-2", status=None)
            assert [job["job_id"] for job in page["jobs"]] == ["job-1", "job-0"] and page["next_after"] is None

    run(main())


def test_a_job_can_fail_or_be_given_back(database: Path, registry: Registry) -> None:
    for name in ("one", "two"):
        registry.register(agent="a", prompt="p", job_id=name)

    async def main() -> None:
        async with connect(database, JOBDB_WORKER="ann's editor") as client:
            assert (await tool(client, "claim", job_id="one"))["claim"]["worker"] == "ann's editor"
            await tool(client, "claim", job_id="two")
            job = await tool(client, "release", job_id="one", attempt=1, reason="not mine", delay_sec=60)
            assert (job["status"], job["detail"]) == ("pending", "not mine") and job["not_before"]
            await tool(client, "fail", job_id="two", attempt=1, detail="no input")

    run(main())
    assert (registry.get("two").status, registry.get("two").detail) == (JobStatus.ERROR, "no input")


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("claim", {"atempt": 1}, "claim has no argument 'atempt'; its arguments: agent, agent_session"),
    ("renew", {"job_id": "held"}, "renew needs attempt"),
    ("register", {}, "register needs agent and prompt"),
    ("claim", {"wait_sec": "a minute"}, "wait_sec of claim must be a number, not str"),
    ("claim", {"wait_sec": True}, "wait_sec of claim must be a number, not bool"),
    ("claim", {"wait_sec": 1e9}, "wait_sec must be 0 to 3600 seconds"),
    ("claim", {"wait_sec": -1}, "wait_sec must be 0 to 3600 seconds"),
    ("claim", {"lease_sec": 0}, "lease_sec must be"),
    ("claim", {"job_id": "held"}, "job held is running"),
    ("publish", {"job_id": "held", "event": "completed"}, "it is one of: started, progress"),
    ("publish", {"job_id": "held", "event": "progress"}, "pass the attempt that the tool claim returned"),
    ("publish", {"job_id": "held", "event": "progress", "attempt": 7}, "stop this work"),
    ("publish", {"job_id": "held", "event": "progress", "attempt": 1, "data": "text"}, "must be an object"),
    ("publish", {"job_id": "held", "event": "progress", "attempt": 1, "data": {"attempt": 9}}, "attempt"),
    ("publish", {"job_id": "held", "event": "progress", "attempt": 1.5}, "attempt of publish must be an integer"),
    ("complete", {"job_id": "ended"}, "job ended has ended as completed"),
    ("show", {"job_id": "none"}, "no job 'none' in this database; the tool list lists the jobs"),
    ("show", {"job_id": "\x1b[2J" * 100}, "job"),
    ("show", {"job_id": 7}, "job_id of show must be a text, not int"),
    ("list", {"status": ["asleep"]}, "asleep"),
    ("list", {"status": [1]}, "must be a list of texts"),
    ("list", {"limit": 10**30}, "limit"),
    ("events", {"job_id": "held", "after": -1}, "after"),
    ("register", {"agent": "a", "prompt": "p", "job_id": "held"}, "held"),
    ("register", {"agent": "a", "prompt": "p" * 5_000_000}, "prompt"),
    ("register", {"agent": "a", "prompt": "p", "auth_token": "t" * 43}, "no argument 'auth_token'"),
    ("answer", {"job_id": "held", "key": "k", "answer": "allow"}, "has no question 'k'; the tool questions lists"),
    ("ask", {"job_id": "held", "attempt": 1, "text": "t", "choices": ["a", "a"]}, "different answers"),
    ("ask", {"job_id": "ended", "text": "t"}, "ended"),
    ("cancel", {"job_id": "held"}, "there is no tool 'cancel' in this server; its tools: register, claim"),
]  # fmt: skip


@both
def test_refusals_are_results_that_say_why(database: Path, registry: Registry, protocol: str) -> None:
    registry.register(agent="a", prompt="p", job_id="held")
    registry.claim(worker="w")
    registry.register(agent="a", prompt="p", job_id="ended")
    registry.complete("ended")

    async def main() -> None:
        async with connect(database, protocol) as client:
            for name, arguments, told in REFUSALS:
                assert told in await refused(client, name, **arguments), (name, arguments)
            assert (await tool(client, "show", job_id="held"))["job"]["last_seq"] == 0

    run(main())
    assert (database.parent / "mcp.err").read_text() == ""


def test_what_fails_inside_is_told_without_its_text(registry: Registry) -> None:
    """The server is broken on purpose: a verb raises what no verb raises."""
    from jobdb import AsyncRegistry
    from jobdb.mcp.server import call
    from jobdb.mcp.session import Session
    from jobdb.mcp.tools import offered_tools

    async def main() -> None:
        broken = AsyncRegistry(registry)

        async def get(_job_id: str) -> None:
            raise RuntimeError(MASTER_KEY)

        broken.get = get  # type: ignore[method-assign]
        session = Session(broken, own_job=None, worker="w")
        result = await call(session, offered_tools(None), "show", {"job_id": "one"})
        assert result.is_error and MASTER_KEY not in result.model_dump_json()
        await broken.aclose()

    run(main())


def test_no_result_contains_a_secret(database: Path, registry: Registry) -> None:
    from jobdb.model import Broker

    registry.register(
        agent="a",
        prompt="p",
        job_id="one",
        broker=Broker(host="127.0.0.1", port=1, username="u"),
        broker_password="hunter2-hunter2",
    )
    token = registry.tokens.show("one")

    async def main() -> None:
        async with connect(database) as client:
            results = [
                await tool(client, "claim", job_id="one"),
                await tool(client, "publish", job_id="one", attempt=1, event="started"),
                await tool(client, "show", job_id="one"),
                await tool(client, "list"),
                await tool(client, "events", job_id="one"),
                await tool(client, "complete", job_id="one", attempt=1),
            ]
            for secret in (token, "hunter2-hunter2", MASTER_KEY):
                assert secret not in str(results)

    run(main())


def test_schemas_have_the_names_of_the_records(registry: Registry) -> None:
    job = registry.register(agent="a", prompt="p")
    event = registry.publish(job.job_id, "progress")
    question = registry.ask(job.job_id, "may I?")
    for schema, record in ((JOB, job), (EVENT, event), (QUESTION, question)):
        assert list(schema["properties"]) == list(record.as_dict()) == schema["required"]
    assert [each.name for each in TOOLS] == NAMES
    assert all("description" in schema for each in TOOLS for schema in each.arguments.values())
    assert all(set(each.required) <= set(each.arguments) for each in TOOLS)


def test_the_tools_work_on_postgresql(database: Path, postgres_database: PostgresDatabase) -> None:
    async def main() -> None:
        async with connect(database, JOBDB_URL=str(postgres_database.url)) as client:
            claiming = asyncio.create_task(tool(client, "claim", wait_sec=60))
            registered = await tool(client, "register", agent="a", prompt="p")
            claim = (await claiming)["claim"]
            assert claim["job_id"] == registered["job_id"]
            held = {"job_id": claim["job_id"], "attempt": 1}
            assert not (await tool(client, "ask", text="may I?", wait_sec=0, **held))["allowed"]
            await tool(client, "complete", **held)

    run(main())
