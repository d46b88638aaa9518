"""Kill hooks at random between question and answer, and check that no tool runs without an answer.

Used by the short test in tests/hooks and the long one in tests/torture. In each round an agent wants to run one
command. Its hook is killed at random moments; the agent tries again, or dies too, and another attempt begins. A person
answers at a random moment. What must hold: one question per round, which survives; one answer; the command runs at most
once per attempt, only after "allow", never after "deny"; and it does run in the end if it was allowed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from jobdb import JobdbError, Registry
from jobdb.hooks.configuration import HookOptions, hook_command
from jobdb.hooks.payload import Agent, HookEvent
from jobdb.system.subprocess_env import without_secrets
from tests.support.agent.process_table import descendants, process_table
from tests.support.hooks.agents import lets_run, shell_call

_LONGEST_SEC = 0.8
"""Later than a hook asks, so that kills hit its start, its question, its wait and its end."""


@dataclass
class Report:
    """The record of the rounds, and the broken promises."""

    seed: int
    rounds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"JOBDB_TORTURE_SEED={self.seed}: {self.rounds} rounds, {dict(self.counts)}"]
        return "\n".join([*lines, *(f"  BROKEN {sentence}" for sentence in self.violations)])


def command_folder(folder: Path) -> Path:
    """Return a folder with a program ``jobdb``, for the PATH of agents."""
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "jobdb"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m jobdb.cli "$@"\n')
    program.chmod(0o755)
    return programs


def run_rounds(
    folder: Path, registry: Registry, environment: Mapping[str, str], *, agent: Agent, rounds: int, seed: int
) -> Report:
    """Run rounds one after the other; return what was found.

    Args:
        folder: an empty folder.
        registry: an empty registry.
        environment: the hooks' environment, with its JOBDB_URL.
        agent: whose hook it is.
        rounds: how many.
        seed: makes the choices repeatable; the moments are the machine's.
    """
    rng = Random(seed)
    report = Report(seed)
    programs = command_folder(folder)
    environment = {**without_secrets(environment), "PATH": f"{programs}{os.pathsep}{environment['PATH']}"}
    if "JOBDB_KEY" in os.environ:
        environment["JOBDB_KEY"] = os.environ["JOBDB_KEY"]
    for number in range(rounds):
        _Round(registry, environment, agent, f"job-{number:04}", rng, report).run()
        report.rounds += 1
    return report


class _Round:
    """One call of a tool, until it has run or was denied by the person."""

    def __init__(
        self, registry: Registry, environment: Mapping[str, str], agent: Agent, job_id: str, rng: Random, report: Report
    ) -> None:
        self._registry = registry
        self._agent = agent
        self._job_id = job_id
        self._rng = rng
        self._report = report
        self._environment = dict(environment)
        self._answer = rng.choice(("allow", "allow", "deny"))
        self._answered = threading.Event()
        self._is_over = threading.Event()
        self._kills = 0
        self._ran: list[tuple[int, bool]] = []

    def run(self) -> None:
        self._registry.register(agent=self._agent.value, prompt="p", job_id=self._job_id)
        attempt = self._claim()
        person = threading.Thread(target=self._person, args=(self._rng.uniform(0, 3 * _LONGEST_SEC),))
        person.start()
        kills = self._rng.randrange(4)
        for number in range(40):
            code, out, err = self._call_hook(attempt, f"call_{attempt}_{number}", kill=number < kills)
            if lets_run(self._agent.value, code, out, err):
                self._ran.append((attempt, self._answered.is_set()))
                break
            if self._answered.is_set() and "denied by ann" in out + err:
                self._report.counts["denied by the person"] += 1
                break
            if number < kills and self._rng.random() < 0.4:
                self._registry.release(self._job_id, attempt=attempt)
                attempt = self._claim()
                self._report.counts["attempts begun anew"] += 1
        self._is_over.set()
        person.join(30)
        self._check()

    def _claim(self) -> int:
        claim = self._registry.claim(worker="w", job_id=self._job_id)
        assert claim is not None
        return claim.attempt

    def _person(self, after_sec: float) -> None:
        """Answer each question, but not before a while.

        There is a second one if a hook was killed when it had taken the answer and not told the agent yet: that answer
        is used up.
        """
        time.sleep(after_sec)
        while not self._is_over.is_set():
            for question in self._registry.questions(job_id=self._job_id):
                was_answered = self._answered.is_set()
                self._answered.set()
                try:
                    self._registry.answer(self._job_id, self._answer, key=question.key, by="ann")
                except JobdbError:  # the attempt that asked is over, and the next has not asked yet
                    if not was_answered:
                        self._answered.clear()
            self._is_over.wait(0.02)

    def _call_hook(self, attempt: int, use_id: str, *, kill: bool) -> tuple[int, str, str]:
        command = hook_command(self._agent, HookEvent.PRE_TOOL_USE, HookOptions(wait_sec=20))
        payload = json.dumps(shell_call(self._agent.value, f"deploy {self._job_id}", use_id))
        variables = {"JOBDB_JOB_ID": self._job_id, "JOBDB_ATTEMPT": str(attempt)}
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**self._environment, **variables}, text=True,
        )  # fmt: skip
        killer = None
        if kill:
            killer = threading.Timer(self._rng.uniform(0.02, _LONGEST_SEC), self._kill_hook, args=(process,))
            killer.start()
        out, err = process.communicate(payload, timeout=60)
        if killer is not None:
            killer.cancel()
            killer.join()
        return process.returncode, out, err

    def _kill_hook(self, process: subprocess.Popen[str]) -> None:
        """Kill ``jobdb hook`` but not the shell that was told what to do then."""
        for found in descendants(process_table(), [process.pid]):
            with suppress(OSError):
                if b"jobdb.cli" in Path(f"/proc/{found.pid}/cmdline").read_bytes():
                    os.kill(found.pid, signal.SIGKILL)
                    self._report.counts["kills"] += 1
                    self._kills += 1

    def _check(self) -> None:
        wrong = self._report.violations
        questions = self._registry.questions(job_id=self._job_id, open_only=False)
        if not 1 <= len(questions) <= 1 + self._kills:
            wrong.append(f"{self._job_id}: {len(questions)} questions after {self._kills} kills")
        if {question.answer for question in questions} != {self._answer}:
            wrong.append(f"{self._job_id}: the answers are {[question.answer for question in questions]}")
        if self._answer == "deny" and self._ran:
            wrong.append(f"{self._job_id}: denied, and it ran")
        if self._answer == "allow" and len(self._ran) != 1:
            wrong.append(f"{self._job_id}: allowed, and it ran {len(self._ran)} times")
        if any(not answered for _, answered in self._ran):
            wrong.append(f"{self._job_id}: it ran before the answer")
        answers = [event for event in self._registry.all_events(self._job_id) if "answer" in event.data]
        if len(answers) != len(questions):
            wrong.append(f"{self._job_id}: the answer was acknowledged {len(answers)} times")
        self._report.counts["ran"] += len(self._ran)
