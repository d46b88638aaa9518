"""A worker that calls a handler in processes, where it can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import InvalidInput, JobStatus, Registry
from jobdb.work import Worker
from jobdb.work.process_runner import ProcessRunner
from jobdb.work.transitions import Ended, Lost, Started
from tests.support.processes import module_environment, python_module
from tests.support.waiting import wait_until
from tests.support.work_handlers import handle
from tests.support.workers import BackgroundWorker, is_running

StartWorker = Callable[..., BackgroundWorker]


def register(registry: Registry, job_id: str, prompt: str, **options: Any) -> None:
    registry.register(agent="codex", prompt=prompt, job_id=job_id, **options)


def read_pids(path: Path) -> list[int]:
    text = wait_until(lambda: path.exists() and path.read_text("ascii"))
    return [int(pid) for pid in text.split()]


def test_the_ends_of_handlers_in_processes(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "done", "return something")
    register(registry, "many", "many 2300")
    register(registry, "broken", "raise no input")
    register(registry, "later", "later overloaded")
    register(registry, "dead", "die", max_attempts=1)
    worker = start_worker(handle, executor="processes", concurrency=2, until_empty=True)
    summary = worker.join()
    assert (summary.claimed, summary.completed, summary.failed, summary.returned) == (6, 3, 2, 1)
    progress, end = registry.events("done")
    assert (progress.detail, progress.data["pct"], end.data["said"]) == ("half of it", 50, "something")
    assert end.data["pid"] != os.getpid()
    assert [event.detail for event in registry.all_events("many")][:-1] == [f"step {n}" for n in range(2300)]
    assert registry.events("broken")[-1].data["exception"] == "ValueError"
    assert registry.events("dead")[-1].data["signal"] == signal.SIGKILL
    assert registry.get("later").attempt == 2


def test_a_cancelled_handler_is_told(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "waiting", "wait")
    worker = start_worker(handle, executor="processes")
    worker.wait_for(Started)
    registry.cancel("waiting")
    assert worker.wait_for(Lost).reason == "job waiting was cancelled"


def test_a_deaf_handler_is_killed_with_its_children(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    register(registry, "deaf", f"sleep {tmp_path / 'pids'}", timeout_sec=1)
    worker = start_worker(ProcessRunner(handle, grace_sec=0.1))
    pids = read_pids(tmp_path / "pids")
    assert worker.wait_for(Ended).detail.startswith("timed out")
    wait_until(lambda: not any(map(is_running, pids)))


def test_stop_kills_and_gives_back(registry: Registry, start_worker: StartWorker, tmp_path: Path) -> None:
    register(registry, "deaf", f"sleep {tmp_path / 'pids'}")
    worker = start_worker(handle, executor="processes")
    pids = read_pids(tmp_path / "pids")
    worker.worker.stop()
    assert worker.join().returned == 1
    assert not any(map(is_running, pids))
    assert registry.get("deaf").status is JobStatus.PENDING


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_handler_ends_with_its_worker_or_with_its_lease(registry: Registry, tmp_path: Path, sign: int) -> None:
    register(registry, "deaf", f"sleep {tmp_path / 'pids'}")
    command = python_module("tests.support.worker_program", registry.url.text, "--lease-sec", 1, "--processes")
    with subprocess.Popen(command, env=module_environment(), stdin=subprocess.DEVNULL) as program:
        try:
            pids = read_pids(tmp_path / "pids")
            program.send_signal(sign)
            wait_until(lambda: not any(map(is_running, pids)))
        finally:
            program.kill()


def test_a_handler_that_cannot_be_given_to_a_process_is_refused(registry: Registry) -> None:
    register(registry, "job", "return")
    with pytest.raises(InvalidInput, match="cannot be given to another process"):
        Worker(registry, lambda work: None, executor="processes").run()
    assert registry.get("job").attempt == 0 and registry.workers() == []
