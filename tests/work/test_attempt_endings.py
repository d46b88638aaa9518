"""Test each way in which an attempt is ended from outside: nothing of it lives when the next attempt starts.

Every test runs one job for each way of resisting, all at once. Their first attempts hang; the second ones complete.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jobdb import JobStatus, NewJob, Registry
from jobdb.work.keeper.cgroup import find_parent_group
from tests.support.agent.fleet import WITHOUT_CGROUPS, Fleet, jobdb_work, worker_environment
from tests.support.agent.journal import check_journal, read_journal
from tests.support.agent.process_table import process_table
from tests.support.databases import SqliteDatabase
from tests.support.requirements import on_linux, require, require_root
from tests.support.waiting import wait_until

pytestmark = on_linux("has /proc and child subreapers")

MARKED = (
    "",
    "ignore-sigterm setsid",
    "double-fork ignore-sigterm",
    "close-fds fork-bomb=6",
    "first:flood=64 setsid",
    "setsid first:stop",
)
UNMARKED = ("clear-environment", "double-fork clear-environment close-fds ignore-sigterm fork-bomb=4")
"""Ways that clear the environment: only those below a keeper, its server or the worker can be found."""
LEASE_SEC = 2
WITHOUT = "without control groups"


class Scene:
    """A worker whose jobs all hang in their first attempt."""

    def __init__(self, registry: Registry, fleet: Fleet) -> None:
        self.registry = registry
        self.fleet = fleet
        (self.worker,) = fleet.workers

    def register(self, ways: tuple[str, ...], *, max_attempts: int = 9, timeout_sec: int = 0) -> None:
        """Register a job for each way, and wait until all first attempts act."""
        self.registry.register_many(
            NewJob(
                agent="hostile",
                prompt=f"{way} first:hang",
                job_id=f"job-{number}",
                max_attempts=max_attempts,
                timeout_sec=timeout_sec,
            )
            for number, way in enumerate(ways)
        )
        wait_until(lambda: sum(entry.kind == "start" for entry in read_journal(self.fleet.agents)) == len(ways))

    def kill(self, *kinds: str) -> None:
        """Kill the worker, all keepers, or their server, in this order; none of them can do anything meanwhile."""
        table = process_table()
        pids = {
            "worker": [self.worker.pid],
            "keepers": [process.pid for process in self.fleet.keepers(table, self.worker)],
            "server": [process.pid for process in self.fleet.servers(table, self.worker)],
        }
        assert all(pids.values()), pids
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for kind in kinds:
                for pid in pids[kind]:
                    with suppress(ProcessLookupError):  # the death of one may be the end of another
                        os.kill(pid, number)
        if "worker" in kinds:
            assert self.worker.wait(20) == -signal.SIGKILL

    def expect_no_agent(self) -> None:
        """Wait until no process of an agent is alive."""
        wait_until(lambda: not self.fleet.agent_processes(process_table()), limit_sec=20)

    def expect_statuses(self, status: JobStatus) -> None:
        wait_until(lambda: {job.status for job in self.registry.all_jobs()} == {status})

    def expect_second_attempts(self) -> None:
        """Wait until all jobs have completed in their second attempt, and end the worker."""
        self.expect_statuses(JobStatus.COMPLETED)
        assert {job.attempt for job in self.registry.all_jobs()} == {2}
        self.expect_clean_end()

    def expect_clean_end(self) -> None:
        """Assert that no attempts have overlapped, and that the worker ends and leaves nothing."""
        assert check_journal(read_journal(self.fleet.agents)) == []
        self.worker.send(signal.SIGTERM)
        assert self.worker.wait(30) == 0, self.worker.output.read_text()
        assert self.fleet.left_processes() == []


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene; with the parameter WITHOUT, where no control groups can be used, whatever this machine has."""
    command = jobdb_work()
    if getattr(request, "param", "") == WITHOUT:
        require_root("a mount namespace")
        command = [*WITHOUT_CGROUPS, *command]
    database = SqliteDatabase(tmp_path / "private", shared=False)
    options: list[object] = [
        "--agent",
        "hostile",
        "-c",
        8,
        "--lease-sec",
        LEASE_SEC,
        "--drain-sec",
        1,
        "--grace-sec",
        1,
    ]
    options += ["--log-dir", tmp_path / "logs"]
    environment = worker_environment(tmp_path, database.url)
    with database.open() as registry, Fleet(tmp_path, environment, options, workers=1, work=command) as fleet:
        yield Scene(registry, fleet)


@pytest.mark.parametrize("kinds", [("worker",), ("worker", "keepers"), ("worker", "server")])
def test_agents_die_with_their_worker(scene: Scene, kinds: tuple[str, ...]) -> None:
    scene.register(MARKED + UNMARKED)
    scene.kill(*kinds)
    scene.expect_no_agent()
    scene.worker.start()
    scene.expect_second_attempts()


@pytest.mark.parametrize("scene", [WITHOUT], indirect=True)
def test_without_control_groups_agents_die_with_their_worker(scene: Scene) -> None:
    scene.register(MARKED + UNMARKED)
    scene.kill("worker")
    scene.expect_no_agent()
    scene.worker.start()
    scene.expect_second_attempts()


@pytest.mark.parametrize("kinds", [("keepers",), ("keepers", "server")])
def test_agents_die_with_their_keeper(scene: Scene, kinds: tuple[str, ...]) -> None:
    scene.register(MARKED + UNMARKED)
    scene.kill(*kinds)
    scene.expect_second_attempts()


@pytest.mark.parametrize("scene", [WITHOUT], indirect=True)
def test_without_control_groups_agents_die_with_their_keeper(scene: Scene) -> None:
    scene.register(MARKED + UNMARKED)
    scene.kill("keepers", "server")
    scene.expect_second_attempts()


def test_agents_outlive_the_server_of_their_keepers(scene: Scene) -> None:
    scene.register(MARKED + UNMARKED)
    before = {process.pid for process in scene.fleet.agent_processes(process_table())}
    scene.kill("server")
    scene.registry.register(agent="hostile", prompt="setsid", job_id="another", priority=1)
    scene.registry.cancel("job-0")
    assert scene.registry.wait("another", timeout_sec=60).status == JobStatus.COMPLETED
    assert len(before & {process.pid for process in scene.fleet.agent_processes(process_table())}) >= len(before) - 1
    for job in scene.registry.jobs(status=JobStatus.RUNNING):
        scene.registry.cancel(job.job_id)
    scene.expect_no_agent()
    scene.expect_clean_end()


@pytest.mark.parametrize("scene", [WITHOUT], indirect=True)
def test_what_nobody_could_end_is_found_by_its_mark(scene: Scene) -> None:
    scene.register(MARKED)
    scene.kill("worker", "server", "keepers")
    scene.worker.start()
    scene.expect_second_attempts()


def test_what_nobody_could_end_is_found_in_its_control_group(scene: Scene) -> None:
    require(find_parent_group() is not None, "this process has no cgroup v2 of its own")
    scene.register(MARKED + UNMARKED)
    scene.kill("worker", "server", "keepers")
    scene.worker.start()
    scene.expect_second_attempts()


@pytest.mark.parametrize("scene", ["", WITHOUT], indirect=True)
def test_a_stopped_worker_loses_its_agents_with_its_lease(scene: Scene) -> None:
    scene.register(MARKED + UNMARKED)
    scene.worker.send(signal.SIGSTOP)
    scene.expect_no_agent()
    scene.worker.send(signal.SIGCONT)
    scene.expect_second_attempts()


@pytest.mark.parametrize("signals", [1, 2])
def test_drained_agents_are_ended_and_their_jobs_released(scene: Scene, signals: int) -> None:
    scene.register(MARKED + UNMARKED)
    for _ in range(signals):
        scene.worker.send(signal.SIGTERM)
    scene.worker.wait(30)
    assert scene.fleet.left_processes() == []
    assert {job.status for job in scene.registry.all_jobs()} == {JobStatus.PENDING}
    scene.worker.start()
    scene.expect_second_attempts()


def test_cancelled_agents_are_ended(scene: Scene) -> None:
    scene.register(MARKED + UNMARKED)
    for job in scene.registry.all_jobs():
        scene.registry.cancel(job.job_id)
    scene.expect_no_agent()
    scene.expect_clean_end()
    assert {job.status for job in scene.registry.all_jobs()} == {JobStatus.CANCELLED}


def test_agents_past_their_time_are_ended(scene: Scene) -> None:
    scene.register(MARKED + UNMARKED, max_attempts=1, timeout_sec=2)
    scene.expect_statuses(JobStatus.ERROR)
    scene.expect_no_agent()
    scene.expect_clean_end()
