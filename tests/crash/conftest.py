"""Makes the harness and the lossy file system importable for the short, seeded tests of crashes."""

import sys
from pathlib import Path

import pytest

from jobdb import Registry

for _folder in ("torture", "conformance"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / _folder))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A registry without jobs, in a folder of its own."""
    path = tmp_path / "private" / "jobs.db"
    path.parent.mkdir(mode=0o700)
    Registry.open(path, create=True).close()
    return path
