"""Test the agent of the demo and the docs by itself: its channel is a plain file here."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import EXAMPLES


def run_agent(folder: Path, task: str, attempt: int) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "THINK_SEC": "0", "JOBDB_EVENTS": str(folder / "events")}
    return subprocess.run(
        ["sh", str(EXAMPLES / "stand-in-agent.sh")],
        input=f"{task}\n",
        cwd=folder,
        env={**environment, "JOBDB_ATTEMPT": str(attempt)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_it_answers(tmp_path: Path) -> None:
    done = run_agent(tmp_path, "sort ten problems into sorted.txt", 1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "I have written sorted.txt.\n", "")
    assert (tmp_path / "sorted.txt").read_text() == "The answer to: sort ten problems into sorted.txt\n"
    assert (tmp_path / "events").read_text() == "progress step 2 of 2: write\n", "a file keeps the last line only"


@pytest.mark.parametrize(("word", "code"), [("crash", -signal.SIGKILL), ("busy", 75)])
def test_it_fails_once(tmp_path: Path, word: str, code: int) -> None:
    task = f"{word} once, then write to answer.txt"
    assert run_agent(tmp_path, task, 1).returncode == code
    assert not (tmp_path / "answer.txt").exists()
    assert run_agent(tmp_path, task, 2).returncode == 0 and (tmp_path / "answer.txt").exists()
