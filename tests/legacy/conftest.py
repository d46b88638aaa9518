"""Registries in the old format, and empty databases to import them into."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobdb import Registry

KEY = "11" * 32
EXAMPLES = Path(__file__).parents[2] / "examples"


def _load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_legacy_registry", EXAMPLES / "make_legacy_registry.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_legacy_registry"] = module
    spec.loader.exec_module(module)
    return module


maker = _load_maker()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_KEY", KEY)
    monkeypatch.delenv("JOBDB_URL", raising=False)
    monkeypatch.delenv("JOBDB_REQUIRE_AUTH", raising=False)


@pytest.fixture(scope="session")
def _sample_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("JOBDB_LEGACY_SAMPLE")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("sample")
    maker.write_registry(folder, jobs=200, damaged=6, leftovers=1, seed=5)
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
    """`write_registry` of the example's script."""
    function: Callable[..., Path] = maker.write_registry
    return function


@pytest.fixture
def open_database(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    """Opens (and makes) databases by name; closes them at the end."""
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


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below a folder: mode, time of change, and digest of its bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def read_records(folder: Path) -> dict[str, Any]:
    """The readable records of a registry, by file name."""
    found = {}
    for path in folder.rglob("jobs/*.json"):
        try:
            record = json.loads(path.read_bytes())
        except ValueError:
            continue
        found[path.name] = record
    return found


def contents(registry: Registry) -> dict[str, Any]:
    """Everything public in a database, tokens and passwords included, by job."""
    found = {}
    for job in registry.all_jobs():
        token = registry.tokens.show(job.job_id) if job.auth == "required" else None
        events = [event.payload for event in registry.events(job.job_id, limit=1000)]
        found[job.job_id] = (job.as_dict(), token, registry.engine.broker(job.job_id)[1], events)
    return found
