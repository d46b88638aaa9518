"""Test what a command says about a PostgreSQL database where its driver is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import clean_environment

WITHOUT_DRIVER = """
import sys
sys.modules["psycopg"] = None  # importing it raises ImportError, as if it were not installed
from jobdb.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("command", ["list", "init", "migrate"])
def test_a_missing_driver_is_reported_with_its_installation(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DRIVER, "--db", "postgresql://nowhere.invalid/jobs", command],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5 and done.stdout == ""
    assert done.stderr.startswith("jobdb: postgresql://nowhere.invalid/jobs needs the PostgreSQL driver")
    assert "pip install 'jobdb[postgresql]'" in done.stderr and done.stderr.count("\n") == 1
