"""Skips a test that this machine cannot run, unless JOBDB_REQUIRE_ALL=1 says that everything must run."""

from __future__ import annotations

import os

import pytest

from tests.support.lossyfs import mount


def require_lossy_mount() -> None:
    """Root and /dev/fuse."""
    reason = mount.unavailable_reason()
    if not reason:
        return
    if os.environ.get("JOBDB_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
