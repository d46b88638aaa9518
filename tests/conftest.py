"""For all levels: where every optional part is required (CI sets JOBDB_REQUIRE_ALL=1), a skip is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("JOBDB_REQUIRE_ALL") != "1":
        return
    if reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line("JOBDB_REQUIRE_ALL=1: a test was skipped, which counts as a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def require() -> Callable[[bool, str], None]:
    """Skips when a condition is not met, or fails where everything is to be run."""

    def check(met: bool, reason: str) -> None:
        if met:
            return
        if os.environ.get("JOBDB_REQUIRE_ALL") == "1":
            pytest.fail(f"JOBDB_REQUIRE_ALL=1, and {reason}")
        pytest.skip(reason)

    return check


@pytest.fixture
def small_disk(tmp_path: Path, require: Callable[[bool, str], None]) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    require(shutil.which("mount") is not None and os.geteuid() == 0, "a small disk needs root's mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", folder], capture_output=True, timeout=30
    )
    require(mounted.returncode == 0, "a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], timeout=30, check=True)
