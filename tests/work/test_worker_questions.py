"""A worker whose agents ask: an open question keeps them alive, and the answer reaches the next attempt."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import EventKind, JobStatus, Registry
from jobdb.work import CommandRunner
from jobdb.work.transitions import Ended, Stopping
from tests.support.keys import MASTER_KEY
from tests.support.waiting import wait_until
from tests.support.workers import BackgroundWorker

StartWorker = Callable[..., BackgroundWorker]
ASK = f'{shlex.join([sys.executable, "-m", "jobdb.cli"])} ask - "May I delete build/?" --key build --wait 120'


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent has no key in its environment: it is the worker's user, who has a key file."""
    key_file = tmp_path / "master.key"
    key_file.touch(0o600)
    key_file.write_text(MASTER_KEY + "\n")
    monkeypatch.delenv("JOBDB_KEY", raising=False)
    monkeypatch.setenv("JOBDB_KEY_FILE", str(key_file))
    monkeypatch.setenv("JOBDB_RUNTIME_DIR", str(tmp_path / "runtime"))


def register(registry: Registry, job_id: str, script: str, **options: Any) -> None:
    registry.register(agent="codex", prompt=script, job_id=job_id, **options)


def shell(folder: Path) -> CommandRunner:
    return CommandRunner(["/bin/sh", "-c", 'eval "$(cat)"'], workdir=folder)


def wait_for_question(registry: Registry) -> None:
    wait_until(lambda: registry.questions())


def outlive_the_idle_limit(registry: Registry, worker: BackgroundWorker) -> None:
    """Return when a job that began later, with the same limit of a second, has been stopped for its silence."""
    register(registry, "silent", "sleep 600", idle_timeout_sec=1)
    wait_until(lambda: any(end.job_id == "silent" for end in worker.of(Ended)))


def test_an_agent_that_asks_is_not_silent(registry: Registry, start_worker: StartWorker, tmp_path: Path) -> None:
    register(registry, "asking", f"{ASK} && touch deleted", idle_timeout_sec=1)
    worker = start_worker(shell(tmp_path), concurrency=2)
    wait_for_question(registry)
    outlive_the_idle_limit(registry, worker)
    assert registry.get("asking").status is JobStatus.RUNNING and not (tmp_path / "deleted").exists()
    registry.answer("asking", "allow", by="ann")
    wait_until(lambda: any(end.job_id == "asking" for end in worker.of(Ended)))
    assert registry.get("asking").status is JobStatus.COMPLETED, registry.events("asking")[-1]
    assert (tmp_path / "deleted").exists()
    assert {EventKind.PERMISSION_REQUIRED, EventKind.PROGRESS} <= {event.event for event in registry.events("asking")}


def test_an_agent_that_is_silent_after_its_answer_is_stopped(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    register(registry, "asking", f"{ASK}; sleep 600", idle_timeout_sec=1)
    worker = start_worker(shell(tmp_path))
    wait_for_question(registry)
    assert not worker.of(Stopping)
    registry.answer("asking", "deny", by="ann")
    assert worker.wait_for(Stopping).cause == "idle"


def test_what_the_agent_says_through_the_library_is_a_sign_of_life(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    publish = f"{shlex.join([sys.executable, '-m', 'jobdb.cli'])} publish progress"
    register(registry, "saying", f"while {publish}; do sleep 0.3; done", idle_timeout_sec=3)
    worker = start_worker(shell(tmp_path), concurrency=2)
    wait_until(lambda: registry.events("saying"))
    register(registry, "silent", "sleep 600", idle_timeout_sec=3)
    wait_until(lambda: any(end.job_id == "silent" for end in worker.of(Ended)))
    assert registry.get("saying").status is JobStatus.RUNNING


def test_the_next_attempt_finds_the_answer(registry: Registry, start_worker: StartWorker, tmp_path: Path) -> None:
    script = f'cp "$JOBDB_CONTEXT" context.$JOBDB_ATTEMPT; {ASK} || exit 4; touch deleted'
    register(registry, "asking", script)
    worker = start_worker(shell(tmp_path))
    wait_for_question(registry)
    worker.worker.stop()
    worker.join()
    assert registry.get("asking").status is JobStatus.PENDING
    registry.answer("asking", "allow", by="ann", message="it is old")
    start_worker(shell(tmp_path)).wait_for(Ended)
    assert registry.get("asking").status is JobStatus.COMPLETED and (tmp_path / "deleted").exists()
    first, second = (json.loads((tmp_path / f"context.{attempt}").read_text("utf-8")) for attempt in (1, 2))
    assert first["answers"] == []
    (answer,) = second["answers"]
    assert (answer["key"], answer["answer"], answer["message"]) == ("build", "allow", "it is old")
    asked = [event for event in registry.events("asking") if event.event is EventKind.PERMISSION_REQUIRED]
    assert len(asked) == 1


def test_an_agent_without_a_key_is_not_allowed(
    registry: Registry, start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBDB_KEY_FILE", str(tmp_path / "none.key"))
    register(registry, "asking", f"{ASK} 2> told && touch deleted; exit 0")
    start_worker(shell(tmp_path)).wait_for(Ended)
    assert not (tmp_path / "deleted").exists() and "key" in (tmp_path / "told").read_text("utf-8")
    assert registry.questions(open_only=False) == []
