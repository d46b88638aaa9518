"""Run the conformance suite at full size: plans with a million jobs, copies of 50,000, full process tests."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import TESTS

SUITE = TESTS / "conformance"
SIZES = {
    "JOBDB_PLAN_JOBS": "1000000",
    "JOBDB_COPY_JOBS": "50000",
    "JOBDB_MODEL_EXAMPLES": "10000",
    "JOBDB_WHOLE_CONFORMANCE": "1",
}


@pytest.mark.parametrize("file", ["test_query_plans.py", "test_copy.py", "test_replay_model.py", "test_processes.py"])
def test_the_conformance_suite_at_full_size(file):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE / file)]
    done = subprocess.run(command, env={**os.environ, **SIZES}, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
