"""Fixtures of the short, seeded crash tests."""

from pathlib import Path

import pytest

from jobdb import Registry


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A registry without jobs, in a folder of its own."""
    path = tmp_path / "private" / "jobs.db"
    path.parent.mkdir(mode=0o700)
    Registry.open(path, create=True).close()
    return path
