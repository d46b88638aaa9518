"""Test questions by tools: who may answer, and that nothing but an answer allows anything."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from tests.support.event_loops import run, until
from tests.support.mcp_client import PROTOCOLS, connect, refused, tool

both = pytest.mark.parametrize("protocol", PROTOCOLS)


@both
@pytest.mark.parametrize("answer", ["allow", "deny"])
def test_an_agent_asks_and_another_one_answers(database: Path, registry: Registry, protocol: str, answer: str) -> None:
    registry.register(agent="a", prompt="p", job_id="one")

    async def main() -> None:
        async with connect(database, protocol) as asking, connect(database, protocol) as answering:
            await tool(asking, "claim")
            call = asyncio.create_task(
                tool(asking, "ask", job_id="one", attempt=1, text="delete build/?", key="k", wait_sec=60)
            )
            await until(registry.questions)
            (question,) = (await tool(answering, "questions"))["questions"]
            assert (await tool(answering, "show", job_id="one"))["open_questions"] == [question]
            given = await tool(answering, "answer", job_id="one", key="k", answer=answer, message="because")
            assert "by mcp " in given["answered_by"]
            asked = await call
            assert asked == {"outcome": "answered", "allowed": answer == "allow", "question": given}
            assert "the first answer is final" in await refused(
                answering, "answer", job_id="one", key="k", answer="allow"
            )
            again = await tool(asking, "ask", job_id="one", attempt=1, text="delete build/?", key="k")
            assert again["allowed"] is (answer == "allow")

    run(main())


def test_an_unanswered_question_allows_nothing_and_can_be_asked_again(database: Path, registry: Registry) -> None:
    registry.register(agent="a", prompt="p", job_id="one")

    async def main() -> None:
        async with connect(database) as client:
            await tool(client, "claim")
            held: dict[str, Any] = {"job_id": "one", "attempt": 1}
            asked = await tool(client, "ask", text="which?", choices=["red", "green"], wait_sec=0, **held)
            assert (asked["outcome"], asked["allowed"], asked["question"]["answer"]) == ("unanswered", False, None)
            key = asked["question"]["key"]
            registry.answer("one", "green", by="ann", key=key)
            asked = await tool(client, "ask", text="which?", choices=["red", "green"], key=key, **held)
            assert (asked["outcome"], asked["allowed"], asked["question"]["answer"]) == ("answered", False, "green")

    run(main())


def test_an_agent_does_not_answer_its_own_question(database: Path, registry: Registry) -> None:
    for name in ("claimed", "asked"):
        registry.register(agent="a", prompt="p", job_id=name)

    async def main() -> None:
        async with connect(database) as client:
            await tool(client, "claim", job_id="claimed")
            registry.ask("claimed", "may I?", key="k", attempt=1)
            await tool(client, "ask", job_id="asked", text="may I?", key="k", wait_sec=0)
            for name in ("claimed", "asked"):
                told = await refused(client, "answer", job_id=name, key="k", answer="allow")
                assert "asked through this server" in told

    run(main())
    assert len(registry.questions()) == 2


def test_a_question_whose_job_ends_is_refused(database: Path, registry: Registry) -> None:
    registry.register(agent="a", prompt="p", job_id="one")

    async def main() -> None:
        async with connect(database) as client:
            await tool(client, "claim")
            call = asyncio.create_task(refused(client, "ask", job_id="one", attempt=1, text="may I?", wait_sec=60))
            await until(registry.questions)
            registry.cancel("one")
            assert "stop this work" in await call

    run(main())
