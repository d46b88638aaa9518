"""Test the examples in the library's docstrings: each public verb has one, and each runs on a new registry."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobdb
from jobdb import AsyncRegistry, Registry, Vault
from jobdb.registry.async_follower import AsyncFollower
from jobdb.registry.async_working import AsyncWorking
from jobdb.registry.follower import Follower
from jobdb.registry.tokens import Tokens
from jobdb.urls import parse_url

VAULT = Vault.open(env={"JOBDB_KEY": "42" * 32})


def verbs(found: type) -> Iterator[tuple[str, Any]]:
    """Return the public methods of a class, including inherited ones, with the class itself."""
    yield found.__name__, found
    for name, member in inspect.getmembers(found):
        if not name.startswith("_") and inspect.isroutine(member):
            yield f"{found.__name__}.{name}", member


VERBS = {name: member for found in (Registry, Tokens, Follower) for name, member in verbs(found)}
VERBS |= {
    name: member
    for found in (AsyncRegistry, AsyncFollower, AsyncWorking)
    for name, member in verbs(found)
    if not hasattr(member, "__wrapped__")  # a verb of Registry, which has its example
}
OTHERS = {
    name: found
    for name, found in {**{name: getattr(jobdb, name) for name in jobdb.__all__}, "parse_url": parse_url}.items()
    if name not in VERBS and ">>>" in (inspect.getdoc(found) or "")
}
THIS_WORKER = jobdb.WorkerInfo(
    worker_id="w1",
    name="host1:4711",
    agent="codex",
    host="host1",
    machine="m1",
    boot_id="b1",
    pid_namespace="4026531836",
    pid=4711,
    pid_started=1000,
    slots=2,
    log_dir=None,
    lease_sec=60,
)
NO_EXAMPLE = {"Tokens"}  # its methods have the examples


def examples(name: str, found: Any, globs: dict[str, Any]) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(inspect.getdoc(found) or "", globs, name, None, 0)


def run(name: str, found: Any, folder: Path) -> str:
    """Run the examples of a docstring; return the failures."""
    with Registry.open(folder / "example.db", create=True, vault=VAULT) as registry:
        globs = {public: getattr(jobdb, public) for public in jobdb.__all__}
        globs |= {"registry": registry, "folder": folder, "time": time, "asyncio": asyncio, "parse_url": parse_url}
        globs |= {"this_worker": THIS_WORKER}
        said: list[str] = []
        doctest.DocTestRunner(verbose=False).run(examples(name, found, globs), out=said.append)
        return "".join(said)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_KEY", "42" * 32)
    monkeypatch.delenv("JOBDB_URL", raising=False)
    monkeypatch.delenv("JOBDB_REQUIRE_AUTH", raising=False)


@pytest.mark.parametrize("name", sorted(VERBS.keys() - NO_EXAMPLE))
def test_each_public_verb_has_an_example(name: str) -> None:
    text = inspect.getdoc(VERBS[name]) or ""
    assert "Example:" in text.splitlines() and examples(name, VERBS[name], {}).examples, f"{name} has no example"


@pytest.mark.parametrize("name", sorted([*VERBS, *OTHERS]))
def test_each_example_runs_as_written(name: str, tmp_path: Path) -> None:
    assert run(name, (VERBS | OTHERS)[name], tmp_path) == ""


def test_a_wrong_example_fails(tmp_path: Path) -> None:
    def wrong() -> None:
        """Do nothing.

        Example:
            >>> registry.register(agent="codex", prompt="sort", job_id="sort-1").status
            <JobStatus.RUNNING: 'running'>
        """

    assert "PENDING" in run("wrong", wrong, tmp_path)


@pytest.mark.parametrize("name", sorted(name for name in VERBS if "." in name))
def test_each_parameter_is_documented(name: str) -> None:
    text = inspect.getdoc(VERBS[name]) or ""
    if "as for :meth:`publish`" in text.splitlines()[0]:
        return
    for parameter in inspect.signature(VERBS[name]).parameters:
        assert parameter == "self" or f"\n    {parameter}: " in text, f"{name} does not say what {parameter} is"
