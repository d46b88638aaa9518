"""Fixtures of the legacy tests: registries in the old format, and empty databases to import them into."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from tests.support.legacy_registry import generator


@pytest.fixture(scope="session")
def _sample_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("JOBDB_LEGACY_SAMPLE")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("sample")
    generator.write_registry(folder, jobs=200, damaged=6, leftovers=1, seed=5)
    return folder


@pytest.fixture
def sample(_sample_made: Path, tmp_path: Path) -> Path:
    """A workspace with 200 legal records, 6 damaged ones, 1 leftover; a copy that may be changed."""
    folder = tmp_path / "workspace"
    shutil.copytree(_sample_made, folder, symlinks=True, copy_function=shutil.copy2)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    folder.chmod(0o700)
    return folder


@pytest.fixture
def make_legacy() -> Callable[..., Path]:
    """Return `write_registry` of the example script."""
    function: Callable[..., Path] = generator.write_registry
    return function


@pytest.fixture
def open_database(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    """Open databases by name, creating missing ones; close them at the end."""
    opened: list[Registry] = []

    def open_one(name: str = "jobs.db", **options: Any) -> Registry:
        registry = Registry.open(tmp_path / "databases" / name, create=True, **options)
        opened.append(registry)
        return registry

    yield open_one
    for registry in opened:
        registry.close()


@pytest.fixture
def registry(open_database: Callable[..., Registry]) -> Registry:
    """An empty database."""
    return open_database()
