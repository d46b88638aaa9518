"""A worker that dies, stands still or loses its keepers: what it ran ends, and another worker goes on at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobdb import JobStatus, Registry
from tests.support.processes import module_environment, python_module
from tests.support.waiting import wait_until
from tests.support.workers import is_running

# The first attempt writes its processes and goes on for ever, in two sessions; the second one must find none of them.
AGENT = """
if [ $JOBDB_ATTEMPT = 1 ]; then
    setsid sleep 600 &
    trap "" TERM
    echo $$ $! $PPID > pids
    while :; do sleep 1; done
fi
for pid in $(head -n 1 pids | cut -d " " -f 1,2); do
    grep -qs "^State:.*[RSDTt] " /proc/$pid/status && echo $pid >> alive
done
exit 0
"""


@pytest.fixture(autouse=True)
def _runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_RUNTIME_DIR", str(tmp_path / "runtime"))


@contextmanager
def worker_program(registry: Registry, folder: Path, *options: object) -> Iterator[subprocess.Popen[bytes]]:
    command = python_module(
        "tests.support.worker_program", registry.url.text, "--script", AGENT, "--workdir", folder, *options
    )
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=module_environment(), stdin=quiet, stderr=quiet) as program:
        try:
            yield program
        finally:
            program.kill()


def read_pids(folder: Path) -> list[int]:
    path = folder / "pids"
    wait_until(lambda: path.exists() and path.read_text("ascii").endswith("\n"))
    return [int(pid) for pid in path.read_text("ascii").split()]


def check_second_attempt(registry: Registry, folder: Path) -> None:
    wait_until(lambda: registry.get("job").terminal)
    job = registry.get("job")
    assert (job.status, job.attempt, job.strikes) == (JobStatus.COMPLETED, 2, 1)
    assert not (folder / "alive").exists()
    assert [event.event for event in registry.all_events("job")] == ["completed"]


@pytest.mark.parametrize("with_keeper", [False, True])
def test_the_job_of_a_killed_worker_is_done_by_the_next_at_once(
    registry: Registry, tmp_path: Path, with_keeper: bool
) -> None:
    registry.register(agent="codex", prompt="sort", job_id="job", max_attempts=3)
    with worker_program(registry, tmp_path, "--lease-sec", 600) as program:
        agent, orphan, keeper = read_pids(tmp_path)
        program.kill()
        if with_keeper:
            os.kill(keeper, signal.SIGKILL)
        program.wait()
    # The lease is long: the next worker of this host knows that the first one is dead.
    with worker_program(registry, tmp_path, "--lease-sec", 600, "--until-empty") as program:
        check_second_attempt(registry, tmp_path)
        assert program.wait(60) == 0
    assert not is_running(agent) and not is_running(orphan)


def test_what_a_stopped_worker_runs_ends_with_its_lease(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="job", max_attempts=3)
    with worker_program(registry, tmp_path, "--lease-sec", 1) as stopped:
        agent, orphan, _keeper = read_pids(tmp_path)
        stopped.send_signal(signal.SIGSTOP)
        wait_until(lambda: not is_running(agent) and not is_running(orphan))
        wait_until(lambda: registry.engine.next_ready_ms() == 0)  # the lease ends a moment later
        with worker_program(registry, tmp_path, "--lease-sec", 60, "--until-empty") as second:
            check_second_attempt(registry, tmp_path)
            assert second.wait(60) == 0
        # It wakes up long after its lease: the job is not its any more, and it records nothing.
        stopped.send_signal(signal.SIGCONT)
        registry.register(agent="codex", prompt="sort", job_id="next")
        wait_until(lambda: registry.get("next").attempt == 1)
    assert [event.event for event in registry.all_events("job")] == ["completed"]


def test_ctrl_c_in_an_application_gives_back_what_runs(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="job", max_attempts=1)
    with worker_program(registry, tmp_path) as program:
        agent, orphan, _keeper = read_pids(tmp_path)
        program.send_signal(signal.SIGINT)
        assert program.wait(60) != 0
    assert not is_running(agent) and not is_running(orphan)
    job = registry.get("job")
    assert (job.status, job.strikes) == (JobStatus.PENDING, 0) and registry.workers() == []


def test_the_processes_of_killed_keepers_end_with_them(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="job", max_attempts=3)
    with worker_program(registry, tmp_path, "--until-empty") as program:
        _agent, _orphan, keeper = read_pids(tmp_path)
        server = int(Path(f"/proc/{keeper}/stat").read_text("ascii").rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        check_second_attempt(registry, tmp_path)
        assert program.wait(60) == 0


def test_what_is_left_of_a_cancelled_job_ends_when_a_worker_begins(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="job")
    with worker_program(registry, tmp_path) as program:
        _agent, orphan, keeper = read_pids(tmp_path)
        server = int(Path(f"/proc/{keeper}/stat").read_text("ascii").rpartition(")")[2].split()[1])
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (program.pid, server, keeper):
                os.kill(pid, number)
    assert is_running(orphan)
    registry.cancel("job")
    with worker_program(registry, tmp_path, "--until-empty") as program:
        assert program.wait(60) == 0
    assert not is_running(orphan)
