"""The targets of the workers, each evaluated on the results of one run.

Pure: takes the results as __main__.py writes them. What is not in the results is "not measured", never "met".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..targets import Verdict
from .peers import PEERS

OWN = {"SQLite": "jobdb-sqlite", "Redis": "jobdb-sqlite", "PostgreSQL": "jobdb-postgresql"}
_EQUAL_BAR = 2.0
_IDLE_SHARE = 0.005
_START_MS = 20.0

Results = Mapping[str, Any]


def rate(results: Results, name: str) -> float | None:
    """Return a peer's median of jobs per second; None if it was not measured."""
    found = results.get("rates", {}).get(name)
    return float(found["per_sec"]["median"]) if found else None


def _speed(results: Results, name: str) -> Verdict:
    about = results.get("peers", {}).get(name)
    if about is None:
        reason = results.get("missing", {}).get(name, "not in this run")
        return Verdict(f"jobs per second against {name}", "≥ 2 or > 1", f"not measured: {reason}", None)
    own = OWN[about["engine"]]
    equal = bool(about["equal"])
    title = f"jobs per second against {about['label']}" + (", equal durability" if equal else ", which gives less")
    bar = f"≥ {_EQUAL_BAR:g}" if equal else "> 1"
    ours, theirs = rate(results, own), rate(results, name)
    if ours is None or not theirs:
        return Verdict(title, bar, f"not measured: {own if ours is None else name}", None)
    ratio = ours / theirs
    met = ratio >= _EQUAL_BAR if equal else ratio > 1
    return Verdict(title, bar, f"{ratio:.2f}×: {ours:,.0f} against {theirs:,.0f}", met)


def _idle(results: Results, name: str, engine: str) -> Verdict:
    title, bar = f"idle worker on {engine}, share of a core", "< 0.5 %"
    found = results.get("idle", {}).get(name)
    if found is None:
        return Verdict(title, bar, "not measured", None)
    share = found["worker_share"]
    server = f", the server {found['server_share'] * 100:.2f} %" if engine == "PostgreSQL" else ""
    text = f"{share * 100:.2f} % in {found['seconds']:.0f} s{server}"
    return Verdict(title, bar, text, share + found["server_share"] < _IDLE_SHARE)


def _start(results: Results, name: str, engine: str) -> Verdict:
    title, bar = f"from a job's registration to the start of its handler on {engine}, p99", "≤ 20 ms"
    found = results.get("start_ms", {}).get(name)
    if found is None:
        return Verdict(title, bar, "not measured", None)
    text = f"{found['p99']:.1f} ms, median {found['median']:.1f} ms, {found['n']} jobs"
    return Verdict(title, bar, text, found["p99"] <= _START_MS)


def evaluate(results: Results) -> list[Verdict]:
    """Return all targets in the order of the report."""
    peers = [name for name in PEERS if name not in OWN.values()]
    return [
        *(_speed(results, name) for name in peers),
        _idle(results, "jobdb-sqlite", "SQLite"),
        _idle(results, "jobdb-postgresql", "PostgreSQL"),
        _start(results, "jobdb-sqlite", "SQLite"),
        _start(results, "jobdb-postgresql", "PostgreSQL"),
    ]
