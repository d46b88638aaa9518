"""Test a server that was started for an attempt: it offers that job alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.model import WorkBatch, WorkerInfo
from tests.support.event_loops import run
from tests.support.mcp_client import COMMAND, connect, refused, server_environment, tool

OWN = {"JOBDB_JOB_ID": "own", "JOBDB_ATTEMPT": "1"}


def run_by_worker(registry: Registry) -> None:
    """Register the job ``own`` and let a worker claim it, as `jobdb work` does."""
    registry.register(agent="a", prompt="p", job_id="own")
    registry.add_worker(
        WorkerInfo(
            worker_id="w1", name="w", agent=None, host="h", machine="", boot_id="", pid_namespace="", pid=1,
            pid_started=1, slots=1, log_dir="/nowhere", lease_sec=600,
        )
    )  # fmt: skip
    registry.work_batch(WorkBatch(worker_id="w1", worker="w", claim=1, lease_sec=600))


def test_an_attempt_that_jobdb_work_runs_has_four_tools(database: Path, registry: Registry) -> None:
    run_by_worker(registry)
    registry.register(agent="a", prompt="p", job_id="other")

    async def main() -> None:
        async with connect(database, **OWN) as client:
            tools = (await client.list_tools()).tools
            assert [each.name for each in tools] == ["publish", "ask", "show", "events"]
            assert all(not {"job_id", "attempt"} & set(each.input_schema["properties"]) for each in tools)
            assert (await tool(client, "publish", event="progress", detail="half"))["attempt"] == 1
            assert (await tool(client, "show"))["job"]["job_id"] == "own"
            asked = await tool(client, "ask", text="may I?", wait_sec=0)
            assert asked["outcome"] == "unanswered" and asked["question"]["job_id"] == "own"
            assert len((await tool(client, "events"))["events"]) == 2
            for name in ("claim", "register", "complete", "fail", "answer", "renew"):
                assert "it offers only what concerns its own job" in await refused(client, name)
            assert "show has no argument 'job_id'" in await refused(client, "show", job_id="other")
            assert "its arguments: none" in await refused(client, "show", attempt=1)

    run(main())
    assert registry.get("own").last_seq == 2


def test_a_claim_made_by_hand_can_be_ended_too(database: Path, registry: Registry) -> None:
    registry.register(agent="a", prompt="p", job_id="own")
    registry.claim(worker="w", lease_sec=600)

    async def main() -> None:
        async with connect(database, **OWN) as client:
            names = [each.name for each in (await client.list_tools()).tools]
            assert names == ["renew", "release", "publish", "complete", "fail", "ask", "show", "events"]
            assert (await tool(client, "renew", lease_sec=5000))["job_id"] == "own"
            await tool(client, "complete", detail="done")
            assert "it is completed at attempt 1; stop this work" in await refused(client, "renew")

    run(main())
    assert registry.get("own").status == "completed"


def test_a_stale_attempt_is_told_to_stop(database: Path, registry: Registry) -> None:
    run_by_worker(registry)

    async def main() -> None:
        async with connect(database, **OWN) as client:
            registry.release("own", attempt=1)
            registry.claim(worker="w2")
            for name, arguments in (("publish", {"event": "progress"}), ("ask", {"text": "may I?"})):
                assert "stop this work" in await refused(client, name, **arguments)

    run(main())
    assert registry.questions() == []


@pytest.mark.parametrize(
    ("variables", "code", "told"),
    [
        ({"JOBDB_JOB_ID": "own"}, 2, "JOBDB_JOB_ID is set, and JOBDB_ATTEMPT is not"),
        ({"JOBDB_ATTEMPT": "1"}, 2, "JOBDB_ATTEMPT is set, and JOBDB_JOB_ID is not"),
        ({"JOBDB_JOB_ID": "own", "JOBDB_ATTEMPT": "one"}, 2, "not the number of an attempt"),
        ({"JOBDB_JOB_ID": "none", "JOBDB_ATTEMPT": "1"}, 2, "no job 'none' in this database"),
        ({"JOBDB_JOB_ID": "../x", "JOBDB_ATTEMPT": "1"}, 2, "job"),
        ({"JOBDB_URL": "sqlite:////nowhere/jobs.db"}, 5, "nowhere"),
    ],
)
def test_half_an_environment_starts_no_server(
    database: Path, registry: Registry, variables: dict[str, str], code: int, told: str
) -> None:
    """It would offer every job to an agent that is to see its own."""
    done = subprocess.run(
        [*COMMAND, "mcp"],
        env={**server_environment(database), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (code, "") and told in done.stderr
