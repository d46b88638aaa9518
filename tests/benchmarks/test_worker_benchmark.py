"""Test the benchmark of the workers: what it counts, its targets, and a run in small of what needs no more packages."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.latencies import spread
from benchmarks.workers import commands, report, tasks
from benchmarks.workers.peers import PEERS
from benchmarks.workers.peers.base import Place, number_of, prompt
from benchmarks.workers.processes import ProcessFailed, call
from benchmarks.workers.recorder import Mark, Recorder
from benchmarks.workers.run import load, measure, save
from benchmarks.workers.series import Plan, available
from benchmarks.workers.targets import OWN, evaluate
from tests.support.requirements import require

TINY = Plan("tiny", jobs=30, rounds=1, idle_sec=0.2, settle_sec=0.2, starts=3, command_jobs=4, command_rounds=1)
ENGINES = {"huey": "SQLite", "rq": "Redis", "procrastinate": "PostgreSQL", "postgresql-loop": "PostgreSQL"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account gets through to, which pytest's own is not for root."""
    made = Path(tempfile.mkdtemp(prefix="jobdb-workers-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def good_results() -> dict[str, Any]:
    """A run that reaches every target exactly."""
    peers, rates = {}, {}
    for name in PEERS:
        engine = "PostgreSQL" if name == OWN["PostgreSQL"] else ENGINES.get(name, "SQLite")
        peers[name] = {"label": name, "engine": engine, "equal": name != "huey"}
        per_sec = 2000.0 if name in OWN.values() else 1999.0 if name == "huey" else 1000.0
        rates[name] = {"per_sec": spread([per_sec])}
    waiting = {"seconds": 20.0, "worker_share": 0.003, "server_share": 0.0019}
    return {
        "peers": peers,
        "rates": rates,
        "idle": {name: dict(waiting) for name in OWN.values()},
        "start_ms": {name: spread([5.0]) | {"p99": 20.0} for name in OWN.values()},
    }


def unmet(results: dict[str, Any]) -> list[str]:
    return [verdict.name for verdict in evaluate(results) if verdict.met is False]


def test_targets_reached_exactly_are_met() -> None:
    assert [verdict.name for verdict in evaluate(good_results()) if verdict.met is not True] == []


def test_an_empty_run_meets_no_target() -> None:
    verdicts = evaluate({})
    assert len(verdicts) == len(PEERS) - 2 + 4
    assert {verdict.met for verdict in verdicts} == {None}


@pytest.mark.parametrize("name", [name for name in PEERS if name not in OWN.values()])
def test_a_peer_that_is_a_little_too_fast_leaves_its_target_unmet(name: str) -> None:
    results = good_results()
    results["rates"][name]["per_sec"] = spread([2000.0 if name == "huey" else 1000.1])
    assert len(unmet(results)) == 1
    assert f"against {name}" in unmet(results)[0]


def test_a_peer_of_a_server_is_compared_with_jobdb_on_that_server() -> None:
    results = good_results()
    results["rates"]["jobdb-postgresql"]["per_sec"] = spread([1999.0])
    assert unmet(results) == [
        f"jobs per second against {name}, equal durability" for name in ("procrastinate", "postgresql-loop")
    ]


def test_the_servers_share_counts_as_idling_too() -> None:
    results = good_results()
    results["idle"]["jobdb-postgresql"]["server_share"] = 0.002
    assert unmet(results) == ["idle worker on PostgreSQL, share of a core"]


def test_a_late_start_is_unmet() -> None:
    results = good_results()
    results["start_ms"]["jobdb-sqlite"]["p99"] = 20.1
    assert len(unmet(results)) == 1


def test_a_job_that_was_lost_or_doubled_spoils_the_run() -> None:
    tasks.check_starts([2, 0, 1], 3)
    for numbers in ([0, 1], [0, 1, 1], [0, 1, 2, 2], [0, 1, 3]):
        with pytest.raises(AssertionError, match="3 jobs"):
            tasks.check_starts(numbers, 3)


def test_the_measured_part_is_between_two_starts() -> None:
    clock = itertools.count()
    recorder = Recorder(10, 1, lambda at_ns: Mark(at_ns, float(next(clock)), 0.0))
    for number in range(10):
        assert not recorder.finished.is_set()
        recorder.started(number, number * 100)
    assert recorder.finished.is_set()
    assert [mark.at_ns for mark in recorder.marks] == [100, 900]
    assert [mark.worker_cpu_sec for mark in recorder.marks] == [0.0, 1.0]


def test_a_payload_names_its_job() -> None:
    assert number_of(prompt(123)) == 123


def test_a_failed_process_is_an_error_with_its_traceback() -> None:
    with pytest.raises(ProcessFailed, match="ValueError"):
        call(int, "x")
    with pytest.raises(ProcessFailed, match="died"):
        call(os._exit, 3)
    with pytest.raises(ProcessFailed, match="did not return"):
        call(time.sleep, 60, timeout_sec=0.1)


def test_a_worker_that_loses_a_job_is_not_measured(folder: Path) -> None:
    place = Place(folder)
    call(tasks.prepare, "sqlite-loop", place, 5)
    with pytest.raises(ProcessFailed, match="no job was started"):
        call(tasks.work_off, "sqlite-loop", place, 6, 2, None, 0.5)


def test_a_tiny_run_measures_and_reports_every_part(folder: Path) -> None:
    names = ["jobdb-sqlite", "jobdb-postgresql", "sqlite-loop", "sqlite-loop-joined", "postgresql-loop"]
    usable, missing = available(names)
    require(not missing, f"a worker is missing: {missing}")
    results = measure(TINY, usable, folder, lambda text: None)
    assert results["failures"] == {}
    assert list(results["rates"]) == names
    for found in results["rates"].values():
        assert len(found["rounds"]) == 1 and found["per_sec"]["min"] > 0
    assert set(results["idle"]) == set(results["start_ms"]) == set(OWN.values())
    save(results, folder / "results", quick=False)
    text = (folder / "results" / "workers.md").read_text("utf-8")
    assert "plain SQLite loop, end and next claim in one transaction" in text
    again = load(folder / "results", quick=False)
    assert again is not None
    assert load(folder / "results", quick=True) is None
    assert "[workers.md](workers.md)" in "\n".join(report.summary(again))


def test_a_command_is_measured_until_all_its_processes_have_ended(folder: Path) -> None:
    done = folder / "done"
    call(commands.usage, ["sh", "-c", f"setsid sh -c 'sleep 0.3; touch {done}' & exit 0"], dict(os.environ), "")
    assert done.exists()


def test_a_command_that_fails_is_an_error(folder: Path) -> None:
    with pytest.raises(ProcessFailed, match="sh ended with 3: no"):
        call(commands.usage, ["sh", "-c", "echo no >&2; exit 3"], dict(os.environ), "")
