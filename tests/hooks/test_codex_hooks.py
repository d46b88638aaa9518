"""Test the hooks with the real Codex: a call is asked about and goes on, another is denied and not executed."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.model import Question
from tests.support.agent.codex import configure_codex
from tests.support.agent.model_server import Call, ModelRequest, ModelServer, Say, Shell, Step
from tests.support.hooks.kills import command_folder
from tests.support.processes import module_environment, python_module
from tests.support.requirements import on_linux, require_codex

pytestmark = on_linux("runs Codex")

WRITE, REMOVE = "echo written > a.txt", "rm -f kept.txt"


def plan(request: ModelRequest) -> Step:
    """Ask for two commands, one after the other."""
    return (Shell(WRITE), Shell(REMOVE), Say("done"))[min(request.turn, 2)]


class Setting:
    """A repository, a registry, and Codex with jobdb's hooks."""

    def __init__(self, folder: Path, home: Path, programs: Path) -> None:
        self.repository = folder / "repository"
        self.repository.mkdir()
        (self.repository / "kept.txt").write_text("kept")
        self.home = home
        private = folder / "private"
        private.mkdir(mode=0o700)
        self.url = f"sqlite:///{private / 'jobs.db'}"
        path = f"{command_folder(folder)}:{programs}:{os.environ['PATH']}"
        self.environment = module_environment(JOBDB_URL=self.url, PATH=path)

    def jobdb(self, *arguments: str) -> str:
        command = python_module("jobdb.cli", *arguments)
        done = subprocess.run(
            command, env=self.environment, cwd=self.repository, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def run_codex(self, job_id: str, *, attempt: int = 1, trust: bool = True) -> subprocess.CompletedProcess[str]:
        trusted = ("--dangerously-bypass-hook-trust",) if trust else ()
        return subprocess.run(
            ["codex", "exec", "--skip-git-repo-check", *trusted, "-"],
            input="do it", env={**self.environment, "JOBDB_JOB_ID": job_id, "JOBDB_ATTEMPT": str(attempt)},
            cwd=self.repository, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip


@pytest.fixture
def setting(tmp_path: Path, clean_environment: Path) -> Setting:
    return Setting(tmp_path, clean_environment, require_codex())


@contextmanager
def person(registry: Registry, job_id: str, answer: Callable[[Question], None]) -> Iterator[None]:
    """Answer each question of a job as it comes, in a thread, until the end of the block."""
    stopped = threading.Event()
    problems: list[BaseException] = []

    def work() -> None:
        while not stopped.is_set():
            for question in registry.questions(job_id=job_id):
                try:
                    answer(question)
                except BaseException as problem:
                    problems.append(problem)
                    return
            stopped.wait(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(30)
        assert problems == []


def test_codex_goes_on_when_allowed_and_does_not_execute_what_is_denied(setting: Setting) -> None:
    with ModelServer(plan) as model, Registry.open(setting.url, create=True) as registry:
        configure_codex(setting.home, model.url)
        setting.jobdb("setup", "codex")
        registry.register(agent="codex", prompt="do it", job_id="job-1")
        registry.claim(worker="w", job_id="job-1")

        def answer(question: Question) -> None:
            if WRITE in question.text:
                assert not (setting.repository / "a.txt").exists(), "it ran before the answer"
                registry.answer("job-1", "allow", by="ann", key=question.key)
            else:
                registry.answer("job-1", "deny", by="bob", key=question.key, message="it is needed")

        with person(registry, "job-1", answer):
            done = setting.run_codex("job-1")
        assert (setting.repository / "a.txt").read_text() == "written\n"
        assert (setting.repository / "kept.txt").exists()
        assert "denied by bob: it is needed" in model.requests[-1].results[-1]
        asked = registry.questions(job_id="job-1", open_only=False)
        assert [(question.answer, question.answered_by) for question in asked] == [("allow", "ann"), ("deny", "bob")]
        events = registry.events("job-1")
        assert events[0].event == "started" and events[0].data["session"] in done.stderr
        assert [event.data["tool"] for event in events if "tool" in event.data] == ["Bash"]
    assert model.errors == []


def test_a_policy_needs_no_person(setting: Setting, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[[rule]]\ntool = "Bash"\npattern = "rm *"\naction = "deny"\n[[rule]]\ntool = "Bash"\naction = "allow"\n'
    )
    with ModelServer(plan) as model, Registry.open(setting.url, create=True) as registry:
        configure_codex(setting.home, model.url)
        setting.jobdb("setup", "codex", "--policy", str(policy))
        registry.register(agent="codex", prompt="do it", job_id="job-1")
        registry.claim(worker="w", job_id="job-1")
        setting.run_codex("job-1")
        assert (setting.repository / "a.txt").exists() and (setting.repository / "kept.txt").exists()
        assert "denied by the policy" in model.requests[-1].results[-1]
        assert registry.questions(job_id="job-1", open_only=False) == []


@pytest.mark.parametrize("fault", ["no job", "no database", "killed", "no program", "not answered"])
def test_codex_executes_nothing_when_the_hook_fails(setting: Setting, fault: str) -> None:
    with ModelServer(plan) as model, Registry.open(setting.url, create=True) as registry:
        configure_codex(setting.home, model.url)
        setting.jobdb("setup", "codex", "--wait", "1")
        registry.register(agent="codex", prompt="do it", job_id="job-1")
        registry.claim(worker="w", job_id="job-1")
        program = setting.repository.parent / "bin" / "jobdb"
        if fault == "no database":
            setting.environment["JOBDB_URL"] = f"sqlite:///{setting.repository}/none.db"
        elif fault == "killed":
            program.write_text("#!/bin/sh\nkill -9 $$\n")
        elif fault == "no program":
            program.unlink()
            setting.environment["PATH"] = f"{require_codex()}:/usr/bin:/bin"
        setting.run_codex("" if fault == "no job" else "job-1")
        assert not (setting.repository / "a.txt").exists() and (setting.repository / "kept.txt").exists()
        assert all("denied" in result or "nobody answered" in result for result in model.requests[-1].results)
        assert len(model.requests[-1].results) == 2


def test_a_later_attempt_finds_the_answer(setting: Setting) -> None:
    with ModelServer(plan) as model, Registry.open(setting.url, create=True) as registry:
        configure_codex(setting.home, model.url)
        setting.jobdb("setup", "codex", "--wait", "1")
        registry.register(agent="codex", prompt="do it", job_id="job-1")
        registry.claim(worker="w", job_id="job-1")
        setting.run_codex("job-1")
        (write, remove) = registry.questions(job_id="job-1")
        registry.answer("job-1", "allow", by="ann", key=write.key)
        registry.answer("job-1", "deny", by="ann", key=remove.key)
        registry.release("job-1", attempt=1)
        registry.claim(worker="w", job_id="job-1")
        setting.run_codex("job-1", attempt=2)
        assert (setting.repository / "a.txt").exists() and (setting.repository / "kept.txt").exists()
        assert len(registry.questions(job_id="job-1", open_only=False)) == 2


def test_codex_skips_hooks_that_are_not_trusted(setting: Setting) -> None:
    """A limit of Codex that `jobdb setup` warns of; if this fails, the warning can go."""
    with ModelServer(plan) as model, Registry.open(setting.url, create=True) as registry:
        configure_codex(setting.home, model.url)
        setting.jobdb("setup", "codex")
        registry.register(agent="codex", prompt="do it", job_id="job-1")
        registry.claim(worker="w", job_id="job-1")
        setting.run_codex("job-1", trust=False)
        assert (setting.repository / "a.txt").exists()
        assert registry.events("job-1") == []


def test_codex_asks_for_no_permission_to_type_into_a_shell(setting: Setting) -> None:
    """A limit of Codex that the page on connecting agents names; if this fails, the page can be shorter."""

    def type_into_shell(request: ModelRequest) -> Step:
        if request.turn == 2:
            return Say("done")
        if not request.turn:
            return Call("exec_command", {"cmd": "bash", "tty": True, "yield_time_ms": 300})
        session = re.search(r"session ID (\d+)", request.results[0])
        assert session is not None, request.results
        typed = {"session_id": int(session[1]), "chars": "echo x > a.txt; exit\n", "yield_time_ms": 5000}
        return Call("write_stdin", typed)

    with ModelServer(type_into_shell) as model, Registry.open(setting.url, create=True) as registry:
        configure_codex(setting.home, model.url)
        setting.jobdb("setup", "codex")
        registry.register(agent="codex", prompt="do it", job_id="job-1")
        registry.claim(worker="w", job_id="job-1")
        with person(registry, "job-1", lambda asked: registry.answer("job-1", "allow", by="ann", key=asked.key)):
            setting.run_codex("job-1")
        assert (setting.repository / "a.txt").exists()
        assert len(registry.questions(job_id="job-1", open_only=False)) == 1, "bash, and not what is typed into it"
    assert model.errors == []
