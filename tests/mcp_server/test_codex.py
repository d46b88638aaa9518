"""Test that a real agent, the Codex command line, works on jobs with `jobdb mcp` as its MCP server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobdb import JobStatus, Registry
from tests.support.agent.codex import add_mcp_server, configure_codex
from tests.support.agent.fleet import jobdb_work, worker_environment
from tests.support.agent.model_server import Call, ModelRequest, ModelServer, Say, Step
from tests.support.keys import MASTER_KEY
from tests.support.mcp_client import COMMAND
from tests.support.requirements import require_codex
from tests.support.waiting import wait_until

NAMESPACE = "mcp__jobdb"
VARIABLES = ("JOBDB_KEY", "JOBDB_KEY_FILE", "JOBDB_URL", "JOBDB_JOB_ID", "JOBDB_ATTEMPT")


def run_codex(model: ModelServer, home: Path, database: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``codex exec -``, whose MCP server is `jobdb mcp` on the database."""
    programs = require_codex()
    configure_codex(home, model.url)
    add_mcp_server(home, "jobdb", (*COMMAND, "mcp"), variables=VARIABLES)
    return subprocess.run(
        [programs / "codex", "exec", "--skip-git-repo-check", "--ephemeral", "--strict-config", "-"],
        input="work\n",
        cwd=database.parent,
        env={**os.environ, "HOME": str(home), "JOBDB_URL": f"sqlite:///{database}", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def answering(registry: Registry, answer: str) -> Iterator[None]:
    """Answer the first question that is asked during the block."""

    def wait_and_answer() -> None:
        (question,) = wait_until(registry.questions)
        registry.answer(question.job_id, answer, by="ann")

    thread = threading.Thread(target=wait_and_answer)
    thread.start()
    yield
    thread.join()


def test_codex_claims_asks_and_completes_by_tools(registry: Registry, database: Path, clean_environment: Path) -> None:
    registry.register(agent="codex", prompt="sort ten problems", job_id="sort-1")

    def plan(request: ModelRequest) -> Step:
        assert NAMESPACE in request.tools, request.tools
        found = re.search(r'"job_id":"([^"]+)","attempt":(\d+)', "".join(request.results))
        held = {"job_id": found[1], "attempt": int(found[2])} if found else {}
        steps: tuple[Step, ...] = (
            Call("claim", {"agent": "codex"}, NAMESPACE),
            Call("publish", {**held, "event": "progress", "detail": "5 of 10"}, NAMESPACE),
            Call("ask", {**held, "text": "May I delete build/?", "key": "build", "wait_sec": 60}, NAMESPACE),
            Call("complete", {**held, "detail": "all sorted"}, NAMESPACE),
            Say("done"),
        )
        return steps[request.turn]

    with ModelServer(plan) as model, answering(registry, "allow"):
        done = run_codex(model, clean_environment, database)
    assert done.returncode == 0 and done.stdout.strip() == "done", done.stderr
    assert model.errors == []
    assert '"allowed":true' in model.requests[3].results[-1]
    assert registry.get("sort-1").status is JobStatus.COMPLETED
    events = [(each.event.value, each.detail) for each in registry.events("sort-1")]
    assert [events[0], events[-1]] == [("progress", "5 of 10"), ("completed", "all sorted")]


def test_codex_inside_an_attempt_has_the_tools_of_its_job(
    registry: Registry, database: Path, clean_environment: Path
) -> None:
    registry.register(agent="codex", prompt="p", job_id="own")
    registry.claim(worker="w", lease_sec=600)

    def plan(request: ModelRequest) -> Step:
        steps = (Call("claim", {}, NAMESPACE), Call("publish", {"event": "progress"}, NAMESPACE), Say("done"))
        return steps[request.turn]

    with ModelServer(plan) as model:
        done = run_codex(model, clean_environment, database, JOBDB_JOB_ID="own", JOBDB_ATTEMPT="1")
    assert done.returncode == 0 and model.errors == [], done.stderr
    assert "unsupported call" in model.requests[1].results[0], "Codex knows no tool claim"
    published = model.requests[2].results[1]
    assert json.loads(published[published.index("{") :])["job_id"] == "own"


def test_codex_under_a_worker_reports_by_tools_and_ends_by_its_exit_code(
    registry: Registry, database: Path, tmp_path: Path, clean_environment: Path
) -> None:
    """Nothing secret is in the agent's environment: its server finds the key in the file."""
    programs = require_codex()
    key = tmp_path / "private" / "key"
    key.write_text(MASTER_KEY, "utf-8")
    key.chmod(0o600)
    registry.register(agent="codex", prompt="work", job_id="own")

    def plan(request: ModelRequest) -> Step:
        steps: tuple[Step, ...] = (
            Call("publish", {"event": "progress", "detail": "half"}, NAMESPACE),
            Call("ask", {"text": "May I?", "wait_sec": 60}, NAMESPACE),
            Call("complete", {}, NAMESPACE),
            Say("done"),
        )
        return steps[request.turn]

    url = f"sqlite:///{database}"
    environment = worker_environment(
        tmp_path, url, PATH=f"{programs}:{os.environ['PATH']}", HOME=str(clean_environment), JOBDB_KEY_FILE=str(key)
    )
    del environment["JOBDB_KEY"]
    command = ("codex", "exec", "--skip-git-repo-check", "--ephemeral", "--strict-config", "-")
    with ModelServer(plan) as model, answering(registry, "deny"):
        configure_codex(clean_environment, model.url)
        add_mcp_server(clean_environment, "jobdb", (*COMMAND, "mcp"), variables=VARIABLES)
        done = subprocess.run(
            jobdb_work("--until-empty", "--log-dir", tmp_path / "logs", "--", *command),
            cwd=tmp_path / "private",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0 and model.errors == [], done.stderr
    results = model.requests[-1].results
    assert '"outcome":"answered","allowed":false' in results[1] and "unsupported call" in results[2]
    events = list(registry.events("own"))
    assert [each.event.value for each in events].count("completed") == 1
    assert events[-1].data["exit_code"] == 0 and "half" in [each.detail for each in events]
