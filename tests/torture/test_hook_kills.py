"""Kill hooks at random between question and answer, 200 rounds per agent."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.hooks.payload import Agent
from tests.support.hooks.kills import run_rounds
from tests.support.processes import module_environment
from tests.support.requirements import on_linux

pytestmark = on_linux("has /proc")

ROUNDS = 200


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("agent", list(Agent))
def test_hooks_that_are_killed_let_no_tool_run(tmp_path: Path, agent: Agent, database: Path) -> None:
    seed = int(os.environ.get("JOBDB_TORTURE_SEED") or secrets.randbelow(2**32))
    environment = module_environment(JOBDB_URL=f"sqlite:///{database}")
    with Registry.open(database) as registry:
        report = run_rounds(tmp_path, registry, environment, agent=agent, rounds=ROUNDS, seed=seed)
    print(report)
    assert report.violations == []
