"""Test the public types with mypy: the mistakes that it must find, and the uses that it must accept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from jobdb import EventKind, JobStatus
from jobdb.core import arguments
from jobdb.model import AuthMode, Durability, EventName, StartPoint, StatusName

ROOT = Path(__file__).parents[2]

MISTAKES = """\
from jobdb import AsyncRegistry, JobStatus, NewEvent, NewJob, Registry
from jobdb.model import JobFilter

registry = Registry.open("jobs.db", durability="ful")  # arg-type
registry.publish("j", "progres")  # arg-type
registry.publish("j", JobStatus.ERROR)  # arg-type
registry.jobs(status="pendig")  # arg-type
registry.jobs(status=["pending", "runing"])  # list-item
registry.jobs(agnet="codex")  # call-arg
registry.all_jobs(status="done")  # arg-type
registry.all_jobs(limit=3)  # call-arg
registry.all_events(7)  # arg-type
registry.subscribe("j", subscriber="s", start="begin")  # arg-type
registry.accept(b"", subscriber="s", start="end")  # arg-type
registry.register(agent="a", prompt="p", auth="none")  # arg-type
registry.register(agent="a", prompt="p", expected_artifacts="out.txt")  # arg-type
NewJob(agent="a", prompt="p", auth="none")  # arg-type
NewJob(agent="a", prompt="p", expected_artifacts="out.txt")  # arg-type
NewEvent(job_id="j", event="progres")  # arg-type
JobFilter(statuses=("pendig",))  # arg-type
registry.jobs(after=registry.events("j").next_after)  # arg-type


async def mistakes() -> None:
    AsyncRegistry.open("jobs.db", durability="ful")  # arg-type
    AsyncRegistry.open("jobs.db").get("j")  # attr-defined
    async with AsyncRegistry.open("jobs.db") as registry:
        await registry.publish("j", "progres")  # arg-type
        await registry.jobs(agnet="codex")  # call-arg
        await registry.claim(agent="codex")  # call-arg
        (await registry.claim(worker="w")).attempt  # union-attr
        registry.get("j").status  # attr-defined
        await registry.wait(7)  # arg-type
        async for job in registry.all_jobs(limit=3):  # call-arg
            job.seq  # attr-defined
        async for event in registry.subscribe("j", subscriber="s", start="begin"):  # arg-type
            event.status  # attr-defined
        await registry.tokens.rotate("j", overlap="1")  # call-arg
        registry.working("j")  # arg-type
        await registry.nonsense()  # attr-defined
"""

USES = """\
from jobdb import AsyncRegistry, Claim, Event, EventKind, Job, JobStatus, NewEvent, NewJob, Page, Registry
from jobdb.model import EventName

names: tuple[EventName, ...] = ("started", "progress")
with Registry.open("jobs.db", create=True, durability="normal") as registry:
    job: Job = registry.register(agent="a", prompt="p", expected_artifacts=["out.txt"], auth="required")
    events: list[Event] = registry.publish_many([NewEvent(job_id="j", event=name) for name in names])
    registry.publish("j", EventKind.PROGRESS)
    kind: EventKind = NewEvent(job_id="j", event="progress").event
    page: Page[Job, str] = registry.jobs(status=["pending", JobStatus.RUNNING], agent="a")
    registry.jobs(status="pending", after=page.next_after)
    registry.events("j", after=registry.events("j").next_after or 0)
    jobs: list[Job] = page
    ended: set[Job] = {job for job in registry.all_jobs(status=JobStatus.COMPLETED) if job.terminal}
    claim: Claim | None = registry.claim(worker="w")
    registry.register_many(NewJob(agent="a", prompt=str(number)) for number in range(3))
    registry.subscribe(subscriber="s", start="now")
    assert registry.accept(b"", subscriber="s").verdict == "malformed"


async def uses() -> None:
    async with AsyncRegistry.open("jobs.db", create=True, durability="normal") as registry:
        job: Job = await registry.register(agent="a", prompt="p", expected_artifacts=["out.txt"], auth="required")
        claim: Claim | None = await registry.claim(worker="w", wait_sec=5)
        page: Page[Job, str] = await registry.jobs(status=["pending", JobStatus.RUNNING], agent="a")
        ended: set[Job] = {job async for job in registry.all_jobs(status=JobStatus.COMPLETED) if job.terminal}
        events: list[Event] = [event async for event in registry.all_events("j", page_size=5)]
        async with registry.subscribe("j", subscriber="s", start="now") as follower:
            event: Event = await anext(follower)
            outcome: Job | None = follower.outcome
        done: Job = await registry.wait("j", timeout_sec=5)
        if claim is not None:
            async with registry.working(claim, lease_sec=30) as work:
                await work.progress("half of it", pct=50)
                work.set_result("all sorted", {"files": work.attempt})
        kid: int = await registry.tokens.rotate("j", overlap_sec=5)
    other: AsyncRegistry = await AsyncRegistry.open()
    sync: Registry = other.registry
    await AsyncRegistry(sync).aclose()
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, str]]:
    """Return the file, line and code of each error that mypy reports."""
    folder = tmp_path_factory.mktemp("types")
    (folder / "mistakes.py").write_text(MISTAKES, "utf-8")
    (folder / "uses.py").write_text(USES, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", folder / "mistakes.py", folder / "uses.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = re.findall(r"(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    assert done.stdout.count(" error: ") == len(found), done.stdout + done.stderr
    return [(file, int(line), code) for file, line, code in found]


def test_mypy_finds_each_mistake(reports: list[tuple[str, int, str]]) -> None:
    expected = [
        ("mistakes.py", number, line.rpartition("  # ")[2])
        for number, line in enumerate(MISTAKES.splitlines(), 1)
        if "  # " in line
    ]
    assert len(expected) > 15
    assert [report for report in reports if report[0] == "mistakes.py"] == expected


def test_mypy_accepts_the_right_uses(reports: list[tuple[str, int, str]]) -> None:
    assert [report for report in reports if report[0] == "uses.py"] == []


def test_the_literals_are_what_the_verbs_take() -> None:
    assert get_args(EventName) == tuple(EventKind) and get_args(StatusName) == tuple(JobStatus)
    for kind, check in (
        (StartPoint, arguments.start),
        (Durability, arguments.durability),
        (AuthMode, arguments.auth_mode),
        (EventName, arguments.event_kind),
        (StatusName, lambda name: arguments.statuses(name)[0]),
    ):
        assert [check(name) for name in get_args(kind)] == list(get_args(kind))
