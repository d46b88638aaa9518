"""Test `jobdb hook` in real processes: it answers in the agent's form, and whatever goes wrong denies."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from tests.support.hooks.agents import PAYLOADS, lets_run, load_payload, shell_call
from tests.support.waiting import wait_until

AGENTS = ("claude-code", "codex")


@pytest.fixture
def job(cli: Any) -> str:
    """A claimed job, in the environment of the commands."""
    found = str(cli.register())
    cli("claim", "--job", found)
    cli.env.update(JOBDB_JOB_ID=found, JOBDB_ATTEMPT="1", JOBDB_RUNTIME_DIR=str(cli.folder / "run"))
    return found


@pytest.fixture
def registry(cli: Any, job: str) -> Iterator[Registry]:
    with cli.open_registry() as opened:
        yield opened


def start_hook(cli: Any, agent: str, payload: dict[str, Any], *options: str) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = cli.start("hook", agent, *options, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(payload).encode())
    process.stdin.close()
    process.stdin = None
    return process


def end(agent: str, process: subprocess.Popen[bytes]) -> tuple[bool, int, str]:
    """Wait for a hook; return whether the tool runs, the exit code and all output."""
    out, err = process.communicate(timeout=60)
    text = out.decode() + err.decode()
    return lets_run(agent, process.returncode, out.decode(), err.decode()), process.returncode, text


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("answer", ["allow", "deny"])
def test_a_person_answers(cli: Any, registry: Registry, job: str, agent: str, answer: str) -> None:
    process = start_hook(cli, agent, shell_call(agent, "rm -rf build", "call_1"))
    (question,) = wait_until(lambda: registry.questions(job_id=job))
    assert question.text == "Bash: rm -rf build [in /home/ann/repo]" and question.choices == ("allow", "deny")
    registry.answer(job, answer, by="ann", message="as discussed")
    runs, code, text = end(agent, process)
    assert (runs, code) == (answer == "allow", 0)
    assert "by ann: as discussed" in text or (agent == "codex" and runs and text == "")
    again = cli("hook", agent, input=json.dumps(shell_call(agent, "rm -rf build", "call_1")))
    assert lets_run(agent, again.code, again.out, again.err) == (answer == "allow")
    assert len(registry.questions(job_id=job, open_only=False)) == 1


@pytest.mark.parametrize("agent", AGENTS)
def test_nobody_answers(cli: Any, registry: Registry, job: str, agent: str) -> None:
    done = cli("hook", agent, "--wait", "0.3", input=json.dumps(shell_call(agent, "rm -rf build", "call_1")))
    assert not lets_run(agent, done.code, done.out, done.err)
    assert "nobody answered within 0.3 s" in done.out
    assert len(registry.questions(job_id=job)) == 1, "it stays open"


@pytest.mark.parametrize("name", [name for name in PAYLOADS if "pre-tool" in name or "permission" in name])
def test_a_policy_answers(cli: Any, registry: Registry, job: str, name: str) -> None:
    agent = name.partition("/")[0]
    policy = cli.folder / "policy.json"
    for action in ("allow", "deny"):
        policy.write_text(json.dumps({"rule": [{"action": action}]}))
        cli.env["JOBDB_POLICY"] = str(policy)
        out = cli("hook", agent, input=PAYLOADS[name].read_bytes()).out
        if "permission" in name:
            assert json.loads(out)["hookSpecificOutput"]["decision"]["behavior"] == action
        else:
            assert lets_run(agent, 0, out, "") == (action == "allow")
    assert registry.events(job) == []


@pytest.mark.parametrize("agent", AGENTS)
def test_what_happens_is_reported(cli: Any, registry: Registry, job: str, agent: str) -> None:
    for name in ("session-start", "post-tool-use-bash", "post-tool-use-bash"):
        done = cli("hook", agent, input=PAYLOADS[f"{agent}/{name}"].read_bytes())
        assert (done.out, done.err) == ("", "")
    started, used = registry.events(job)
    session = load_payload(f"{agent}/session-start")["session_id"]
    assert started.event == "started" and started.data["session"] == session
    assert started.data["source"] == "startup" and started.data["agent"] == agent
    assert used.event == "progress" and used.data["tool"] == "Bash" and used.detail.startswith("Bash: ")
    cli("hook", agent, "--progress-every", "0", input=PAYLOADS[f"{agent}/post-tool-use-bash"].read_bytes())
    assert len(registry.events(job)) == 3


def test_a_notification_is_progress(cli: Any, registry: Registry, job: str) -> None:
    cli("hook", "claude-code", input=PAYLOADS["claude-code/notification"].read_bytes())
    (event,) = registry.events(job)
    assert event.event == "progress" and event.detail == "Claude needs your permission to use Bash"


FAULTS: dict[str, dict[str, str]] = {
    "no job": {"JOBDB_JOB_ID": ""},
    "another job": {"JOBDB_JOB_ID": "another"},
    "no attempt": {"JOBDB_ATTEMPT": ""},
    "a stale attempt": {"JOBDB_ATTEMPT": "7"},
    "an attempt that is none": {"JOBDB_ATTEMPT": "x"},
    "no database": {"JOBDB_URL": "sqlite:////none/jobs.db"},
    "an unreachable server": {"JOBDB_URL": "postgresql://127.0.0.1:1/none"},
    "no key": {"JOBDB_KEY": "", "JOBDB_KEY_FILE": "/none"},
    "another key": {"JOBDB_KEY": "jobdb-key-" + "0" * 64},
    "a policy that is missing": {"JOBDB_POLICY": "/none.toml"},
    "a policy that is none": {"JOBDB_POLICY": "/dev/null.json"},
    "no runtime folder": {"JOBDB_RUNTIME_DIR": "/dev/null/run"},
}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_wrong_denies(cli: Any, job: str, agent: str, fault: str) -> None:
    payload = json.dumps(shell_call(agent, "rm -rf build", "call_1"))
    done = cli("hook", agent, "--wait", "1", input=payload, env=FAULTS[fault], code=2)
    assert done.out == "" and done.err.startswith("jobdb: ") and ": denied" in done.err
    assert done.err.count("\n") == 1
    assert not lets_run(agent, done.code, done.out, done.err)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"null", b'{"hook_event_name": "Stop"}', b"[" * 100_000])
def test_malformed_input_denies(cli: Any, job: str, agent: str, raw: bytes) -> None:
    done = cli("hook", agent, input=raw, code=2)
    assert done.out == "" and ": denied" in done.err


def test_a_wrong_command_denies(cli: Any, job: str) -> None:
    payload = json.dumps(shell_call("codex", "rm -rf build", "call_1"))
    for arguments in (("emacs",), (), ("codex", "--wait", "x"), ("codex", "--wait", "nan"), ("codex", "--nonsense")):
        done = cli("hook", *arguments, input=payload, code=2)
        assert done.out == "" and done.err


def test_a_busy_database_denies(cli: Any, registry: Registry, job: str) -> None:
    payload = json.dumps(shell_call("codex", "rm -rf build", "call_1"))
    with registry.engine.store.write():
        done = cli("--busy-timeout", "0.2", "hook", "codex", "--wait", "1", input=payload, code=2)
    assert ": denied" in done.err


def test_a_full_disk_denies(cli: Any, registry: Registry, job: str) -> None:
    cli.env["JOBDB_POLICY"] = str(cli.folder / "policy.toml")
    (cli.folder / "policy.toml").write_text('[[rule]]\naction = "allow"\n')
    payload = PAYLOADS["claude-code/pre-tool-use-bash"].read_bytes()
    with open("/dev/full", "wb") as full:
        process = cli.start("hook", "claude-code", stdin=subprocess.PIPE, stdout=full)
        _, err = process.communicate(payload, timeout=60)
    assert process.returncode == 2 and b"denied" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_hook_never_exits_as_one_that_allows(
    cli: Any, registry: Registry, job: str, number: signal.Signals
) -> None:
    process = start_hook(cli, "codex", shell_call("codex", "rm -rf build", "call_1"))
    wait_until(lambda: registry.questions(job_id=job))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (2, -number)


def test_a_job_that_is_cancelled_denies(cli: Any, registry: Registry, job: str) -> None:
    process = start_hook(cli, "codex", shell_call("codex", "rm -rf build", "call_1"))
    wait_until(lambda: registry.questions(job_id=job))
    registry.cancel(job)
    runs, code, text = end("codex", process)
    assert not runs and code == 2 and "denied" in text


def test_a_report_that_fails_is_no_denial(cli: Any, job: str) -> None:
    """Exit code 2 after a tool would tell the model that the tool failed."""
    for name in ("session-start", "post-tool-use-bash"):
        done = cli("hook", "codex", input=PAYLOADS[f"codex/{name}"].read_bytes(), env={"JOBDB_JOB_ID": "x"}, code=1)
        assert "denied" not in done.err


def test_an_agent_without_a_job_may_be_left_alone(cli: Any, job: str, tmp_path: Path) -> None:
    payload = json.dumps(shell_call("codex", "rm -rf build", "call_1"))
    nothing = {"JOBDB_JOB_ID": "", "JOBDB_ATTEMPT": ""}
    done = cli("hook", "codex", "--without-job", "pass", input=payload, env=nothing)
    assert (done.out, done.err) == ("", "")
    marked = {**nothing, "JOBDB_PROCESS_MARK": "r:j:1"}
    cli("hook", "codex", "--without-job", "pass", "--wait", "0", input=payload, env=marked, code=2)
    cli("hook", "codex", "--without-job", "other", input=payload, env=nothing, code=2)
