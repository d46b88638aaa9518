"""Test that a hook may be killed at any moment: no tool runs without an answer, and the question survives."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.hooks.payload import Agent
from tests.support.hooks.kills import run_rounds
from tests.support.processes import module_environment
from tests.support.requirements import on_linux

pytestmark = on_linux("has /proc")


@pytest.mark.parametrize("agent", list(Agent))
def test_hooks_that_are_killed_let_no_tool_run(tmp_path: Path, agent: Agent, database: Path) -> None:
    environment = module_environment(JOBDB_URL=f"sqlite:///{database}")
    with Registry.open(database) as registry:
        report = run_rounds(tmp_path, registry, environment, agent=agent, rounds=6, seed=15)
    print(report)
    assert report.violations == []
    assert report.counts["kills"]
