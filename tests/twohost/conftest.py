"""Fixtures for tests between two hosts: `two_hosts(...)` starts the file server in its own process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.twohosts.mount import TwoHosts, unavailable_reason


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[Callable[..., TwoHosts]]:
    """Starts a server with the given options of `tests.support.twohosts.server`; it is gone when the test ends."""
    import os

    if reason := unavailable_reason():
        if os.environ.get("JOBDB_REQUIRE_ALL") == "1":
            pytest.fail(f"JOBDB_REQUIRE_ALL=1, and {reason}")
        pytest.skip(reason)
    with ExitStack() as running:
        yield lambda *options: running.enter_context(TwoHosts(tmp_path, *options))
