"""Test that a worker runs a real agent, the Codex command line: 20 jobs in 4 slots, one of which loses its keeper."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from pathlib import Path

from jobdb import JobStatus, NewJob, Registry
from jobdb.engines.identity import read_identity
from tests.support.agent.codex import configure_codex
from tests.support.agent.fleet import WorkerProcess, jobdb_work, worker_environment
from tests.support.agent.model_server import ModelRequest, ModelServer, Say, Shell, Step
from tests.support.agent.process_table import agent_processes, process_table
from tests.support.requirements import on_linux, require_codex
from tests.support.waiting import wait_until

pytestmark = on_linux("has /proc")

JOBS = 20
SLOTS = 4
LOST = "job-07"
"""The job whose keeper is killed in its first attempt, while Codex waits for a command."""


def plan(request: ModelRequest) -> Step:
    """Tell Codex to write the file that its prompt names; the first time, the lost job never comes to that."""
    found = re.search(r"Write (job-\d+)\.txt", request.prompt)
    assert found is not None, request.prompt
    name = found[1]
    if request.turn:
        return Say(f"{name} is written.")
    hang = f'if [ "$JOBDB_JOB_ID $JOBDB_ATTEMPT" = "{LOST} 1" ]; then touch begun; sleep 600; fi'
    return Shell(
        f'{hang}; echo "progress writing {name}.txt" > "$JOBDB_EVENTS"; '
        f"echo {name} $JOBDB_ATTEMPT >> acted; echo the text of {name} > {name}.txt"
    )


def test_twenty_jobs_of_codex_are_done_once_although_a_keeper_is_killed(
    tmp_path: Path, clean_environment: Path
) -> None:
    programs = require_codex()
    folder = tmp_path / "repository"
    folder.mkdir()
    (tmp_path / "private").mkdir(mode=0o700)
    url = f"sqlite:///{tmp_path / 'private' / 'jobs.db'}"
    environment = worker_environment(tmp_path, url, PATH=f"{programs}:{os.environ['PATH']}")
    codex = ("codex", "exec", "--skip-git-repo-check", "--ephemeral", "-")
    options = ("--agent", "codex", "-c", SLOTS, "--log-dir", tmp_path / "logs", "--", *codex)
    worker = WorkerProcess(jobdb_work(*options), environment, folder, tmp_path / "worker.out")
    with ModelServer(plan) as model, Registry.open(url, create=True) as registry:
        configure_codex(clean_environment, model.url)
        registry_id = read_identity(registry.store).registry_id
        names = [f"job-{number:02}" for number in range(JOBS)]
        registry.register_many(
            NewJob(agent="codex", prompt=f"Write {name}.txt.", job_id=name, expected_artifacts=(f"{name}.txt",))
            for name in names
        )
        worker.start()
        try:
            wait_until((folder / "begun").exists)
            kill_keeper(registry_id)
            done = {JobStatus.COMPLETED: JOBS}
            wait_until(lambda: {status: count for status, count in registry.count_by_status().items() if count} == done)
            worker.send(signal.SIGTERM)
            assert worker.wait(30) == 0, worker.output.read_text()
        finally:
            worker.send(signal.SIGKILL)
        assert agent_processes(process_table(), registry_id) == [], "the killed attempt has left its sleep"
        assert sorted(line.split()[0] for line in (folder / "acted").read_text().splitlines()) == names
        for name in names:
            check_job(registry, name, folder / f"{name}.txt")
    assert model.errors == []


def kill_keeper(registry_id: str) -> None:
    """Kill the parent of the lost job's agent."""
    table = process_table()
    processes = agent_processes(table, registry_id, LOST)
    pids = {process.pid for process in processes}
    (keeper,) = {process.parent for process in processes if process.parent not in pids}
    os.kill(keeper, signal.SIGKILL)


def check_job(registry: Registry, name: str, artifact: Path) -> None:
    """Assert that a job completed in its last attempt, once, with its artifact, progress and log."""
    events = list(registry.all_events(name))
    (last,) = [event for event in events if event.event.terminal]
    attempts = registry.attempts(name)
    assert len(attempts) == (2 if name == LOST else 1)
    assert last.attempt == attempts[-1].attempt and last.data is not None
    assert last.data["exit_code"] == 0 and last.data["duration_sec"] > 0
    content = artifact.read_bytes()
    assert content == f"the text of {name}\n".encode()
    digest = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert last.data["artifacts"] == {artifact.name: digest}
    assert [event.detail for event in events if event.event == "progress"] == [f"writing {name}.txt"]
    log = attempts[-1].log
    assert log is not None and f"{name} is written." in Path(log).read_text()
