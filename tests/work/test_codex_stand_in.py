"""Test that the real Codex command line runs on the stand-in for the model, without anything of the user's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.agent.codex import configure_codex
from tests.support.agent.model_server import Call, ModelServer, Plan, Say, Shell, parse_request, scripted
from tests.support.requirements import require_codex


def run_codex(
    plan: Plan, home: Path, folder: Path, prompt: str
) -> tuple[subprocess.CompletedProcess[str], ModelServer]:
    """Run ``codex exec -`` in ``folder`` with a prompt on stdin."""
    programs = require_codex()
    with ModelServer(plan) as model:
        configure_codex(home, model.url)
        done = subprocess.run(
            [programs / "codex", "exec", "--skip-git-repo-check", "--ephemeral", "--strict-config", "-"],
            input=prompt,
            cwd=folder,
            env={**os.environ, "HOME": str(home), "JOBDB_PROCESS_MARK": "codex-alone:job:1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    return done, model


def test_codex_runs_the_commands_of_the_model(clean_environment: Path, tmp_path: Path) -> None:
    plan = scripted(
        Shell('printf %s "$JOBDB_PROCESS_MARK" > mark.txt'), Shell("echo two > two.txt"), Say("both written")
    )
    done, model = run_codex(plan, clean_environment, tmp_path, "write the files\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "both written"
    assert (tmp_path / "mark.txt").read_text() == "codex-alone:job:1", "what Codex runs has the environment of the job"
    assert (tmp_path / "two.txt").read_text() == "two\n"
    assert model.errors == []
    assert [(request.prompt, request.turn) for request in model.requests] == [
        ("write the files\n", n) for n in range(3)
    ]


def test_an_error_of_the_plan_fails_codex(clean_environment: Path, tmp_path: Path) -> None:
    def plan(request: object) -> Say:
        raise LookupError("no such prompt")

    done, model = run_codex(plan, clean_environment, tmp_path, "anything")
    assert done.returncode == 1 and {str(error) for error in model.errors} == {"no such prompt"}


def test_requests_are_read() -> None:
    user = {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}
    outputs = [{"type": "function_call_output", "output": "1"}, {"type": "custom_tool_call_output", "output": "2"}]
    body = {"input": [{"role": "user", "content": "before"}, outputs[0], user, *outputs], "tools": [{"name": "shell"}]}
    request = parse_request(body)
    assert (request.prompt, request.results, request.tools, request.turn) == ("ab", ("1", "2"), ("shell",), 2)
    plan = scripted(Shell("true"), Call("tool", {}), Say())
    assert plan(request) == plan(parse_request({"input": [user, *outputs * 3]})) == Say("done")
    assert plan(parse_request({})) == Shell("true")


def test_an_agent_without_a_shell_is_an_error() -> None:
    offered = {"tools": [{"type": "web_search"}]}
    with ModelServer(scripted(Shell("true"))) as model, pytest.raises(ValueError, match="no shell: web_search"):
        model.answer(offered)
