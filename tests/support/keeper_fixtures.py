"""Fixtures of the tests that run attempts under a keeper; loaded as a plugin by tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobdb.work.keeper.cgroup import find_parent_group
from jobdb.work.keeper.client import KeeperServer
from tests.support.keeper_worker import WorkerProcess
from tests.support.keepers import Attempts
from tests.support.process_marks import none_left
from tests.support.requirements import require


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    """Launches of one job in a folder of their own. The test fails if it leaves a process of them alive."""
    made = Attempts(tmp_path)
    with none_left(made.mark):
        yield made


@pytest.fixture
def worker_process(attempts: Attempts) -> Iterator[WorkerProcess]:
    """A worker, a child subreaper, that the test may kill."""
    worker = WorkerProcess(attempts)
    try:
        yield worker
    finally:
        worker.close()


@pytest.fixture
def keeper_server(attempts: Attempts) -> Iterator[KeeperServer]:
    """A keeper server without control groups, which are not to be had everywhere."""
    with KeeperServer(use_cgroups=False) as server:
        yield server


@pytest.fixture(params=("subreaper", "cgroup"))
def each_keeper_server(request: pytest.FixtureRequest, attempts: Attempts) -> Iterator[KeeperServer]:
    """A keeper server without, then one with control groups; the latter leaves none behind."""
    use_cgroups = request.param == "cgroup"
    parent = find_parent_group() if use_cgroups else None
    require(parent is not None or not use_cgroups, "no cgroup v2 is writable for this process")
    with KeeperServer(use_cgroups=use_cgroups) as server:
        yield server
    if parent is not None:
        own = [path for path in Path(parent.decode()).glob("jobdb-*") if not is_of_a_living_process(path)]
        assert own == []


def is_of_a_living_process(group: Path) -> bool:
    return Path("/proc", group.name.split("-")[1]).exists()
