"""Load the shared fixtures, and fail a run that skipped a test although every test must run."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.support.fixtures", "tests.support.keeper_fixtures"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(met, reason): skip the test, or fail under JOBDB_REQUIRE_ALL=1")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a test was skipped under JOBDB_REQUIRE_ALL=1, by other means than ``requirements``."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("JOBDB_REQUIRE_ALL") != "1":
        return
    if reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line("JOBDB_REQUIRE_ALL=1: a test was skipped, which counts as a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
