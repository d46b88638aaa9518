"""Test the benchmark targets: each is met exactly when its value is reached, and never when it was not measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import targets
from benchmarks.latencies import add, histogram, percentile_us, spread

MODULES = sorted(path.stem for path in Path(targets.__file__).parent.glob("*.py"))
VERBS = ("register", "claim", "publish", "accept", "complete", "list_page")


def make_series(way: str, operation: str, workers: int, size: int, per_sec: float, **more: float) -> dict[str, Any]:
    return {
        "way": way,
        "operation": operation,
        "workers": workers,
        "size": size,
        "per_sec": spread([per_sec]),
        "longest_us": spread([more.get("longest_us", 1000.0)]),
        "slowest_fastest": spread([more.get("slowest_fastest", 1.0)]),
        "failures": [],
    }


def good_results() -> dict[str, Any]:
    """A run that reaches every target exactly."""
    series = [
        make_series("jobdb-full", "publish", 8, 1000, 6000, slowest_fastest=0.6, longest_us=1000),
        make_series("jobdb-full", "publish", 32, 1000, 6000, slowest_fastest=0.6, longest_us=1000),
        make_series("flock-fsync", "publish", 8, 1000, 1000),
        make_series("sqlite-full", "publish", 8, 1000, 3000, longest_us=20_000),
        make_series("sqlite-full", "publish", 32, 1000, 3000, longest_us=20_000),
        make_series("jobdb-full", "claim", 8, 1000, 20_000),
        make_series("flock-fsync", "claim", 8, 1000, 1000),
        make_series("sqlite-full", "claim", 8, 1000, 10_000),
        make_series("huey", "claim", 8, 1000, 19_000),
        make_series("jobdb-full", "claim", 8, 100_000, 5000),
        make_series("flock-fsync", "claim", 8, 100_000, 10),
    ]
    for verb in VERBS:
        series += [
            make_series("jobdb-full", verb, 1, 1000, 1000),
            make_series("raw-full", verb, 1, 1000, 1500),
            make_series("jobdb-normal", verb, 1, 1000, 1000),
            make_series("raw-normal", verb, 1, 1000, 2500),
            make_series("jobdb-full", verb, 1, 1_000_000, 1000 / 1.5),
            make_series("jobdb-full", f"{verb}_100", 1, 1000, 20_000),
        ]
    return {
        "ways": {"huey": {"durability": "full"}, "sqlite-full": {"durability": "full"}},
        "series": series,
        "cold_start": {"jobdb publish": spread([0.15]), "import typer": spread([0.1])},
    }


def change(results: dict[str, Any], way: str, operation: str, workers: int, size: int, **values: float) -> None:
    for one in results["series"]:
        if (one["way"], one["operation"], one["workers"], one["size"]) == (way, operation, workers, size):
            one.update({name: spread([value]) for name, value in values.items()})
            return
    raise AssertionError("no such series in the example")


def unmet(results: dict[str, Any]) -> list[str]:
    return [verdict.name for verdict in targets.evaluate(results) if verdict.met is False]


def test_targets_reached_exactly_are_met() -> None:
    assert [verdict.name for verdict in targets.evaluate(good_results()) if verdict.met is not True] == []


def test_an_empty_run_meets_no_target() -> None:
    verdicts = targets.evaluate({})
    assert len(verdicts) == 15
    assert {verdict.met for verdict in verdicts} == {None}


@pytest.mark.parametrize(
    ("place", "values", "named"),
    [
        (("flock-fsync", "publish", 8, 1000), {"per_sec": 1001}, "publish against flock"),
        (
            ("flock-fsync", "claim", 8, 1000),
            {"per_sec": 1001},
            "claim against flock+fsync, 8 processes, 1,000 jobs",
        ),
        (("sqlite-full", "publish", 8, 1000), {"per_sec": 3001}, "publish against plain"),
        (("sqlite-full", "claim", 8, 1000), {"per_sec": 10_001}, "claim against plain"),
        (("flock-fsync", "claim", 8, 100_000), {"per_sec": 10.1}, "100,000 jobs"),
        (("sqlite-full", "publish", 32, 1000), {"longest_us": 19_000}, "longest wait"),
        (("jobdb-full", "publish", 32, 1000), {"slowest_fastest": 0.59}, "slowest/fastest"),
        (("huey", "claim", 8, 1000), {"per_sec": 20_000}, "every SQLite peer"),
        (("raw-full", "list_page", 1, 1000), {"per_sec": 1501}, "one process, full"),
        (("raw-normal", "register", 1, 1000), {"per_sec": 2501}, "one process, normal"),
        (("jobdb-full", "accept", 1, 1_000_000), {"per_sec": 600}, "1,000,000 jobs"),
        (("jobdb-full", "accept_100", 1, 1000), {"per_sec": 19_999}, "accept in batches"),
    ],
)
def test_each_target_missed_slightly_is_unmet(
    place: tuple[str, str, int, int], values: dict[str, float], named: str
) -> None:
    results = good_results()
    change(results, *place, **values)
    found = unmet(results)
    assert len(found) == 1, found
    assert named in found[0]


def test_a_slow_batch_is_compared_with_its_bare_statements() -> None:
    results = good_results()
    change(results, "jobdb-full", "accept_100", 1, 1000, per_sec=10_000)
    name = "accept in batches"
    assert "100 of 1000 µs" in next(v.why for v in targets.evaluate(results) if v.name.startswith(name))
    results["series"].append(make_series("raw-full", "accept_100", 1, 1000, 15_000))
    why = next(v.why for v in targets.evaluate(results) if v.name.startswith(name))
    assert "67 µs per item" in why
    assert "15.0× as fast as one by one, and 10.0× as fast as the bare" in why


def test_a_slow_command_is_unmet() -> None:
    results = good_results()
    results["cold_start"]["jobdb publish"] = spread([0.151])
    assert unmet(results) == ["jobdb publish as a command, relative to python -c 'import typer'"]


def test_a_failed_series_counts_as_not_measured() -> None:
    results = good_results()
    for one in results["series"]:
        if one["way"] == "raw-full" and one["operation"] == "claim":
            one["failures"] = ["ValueError: broken"]
    verdict = next(v for v in targets.evaluate(results) if "one process, full" in v.name)
    assert verdict.met is None
    assert "claim not measured (raw-full failed in claim)" in verdict.measured


def test_a_peer_that_gives_less_durability_is_not_compared() -> None:
    results = good_results()
    results["ways"]["huey"]["durability"] = "normal"
    change(results, "huey", "claim", 8, 1000, per_sec=10**6)
    assert unmet(results) == []


def test_percentiles_are_accurate_to_a_bucket() -> None:
    counts = histogram(range(1000, 100_001, 1000))
    assert percentile_us(counts, 0.5) == pytest.approx(50, rel=0.05)
    assert percentile_us(counts, 0.99) == pytest.approx(99, rel=0.05)
    assert percentile_us(counts, 1.0) == pytest.approx(100, rel=0.05)
    assert percentile_us({}, 0.5) == 0.0


def test_histograms_add_up() -> None:
    assert add([{1: 2, 3: 1}, {3: 4}]) == {1: 2, 3: 5}
    assert sum(histogram([5, 5, 1_000_000]).values()) == 3


def test_spread_of_few_values() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "q1": 1.5, "q3": 2.5, "n": 3}
    assert spread([7.0])["q1"] == 7.0
    assert spread([])["n"] == 0


@pytest.mark.parametrize("module", MODULES)
def test_each_module_of_the_benchmarks_imports(module: str) -> None:
    importlib.import_module(f"benchmarks.{module}")


def test_adapters_without_further_packages_load() -> None:
    from benchmarks.adapters import ADAPTERS

    for name in ("jobdb-full", "flock-fsync", "sqlite-full", "raw-full", "postgresql"):
        assert ADAPTERS[name].load().__name__ == ADAPTERS[name].cls
