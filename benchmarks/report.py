"""Write a run's report: REPORT.md with every table, headline.md for the README, and the plots.

Called by __main__.py with the results of one run; every number in the text comes from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import plots
from .adapters.base import BATCH_OPERATIONS, OPERATIONS
from .markdown import machine, ms, number, table, targets

Results = Mapping[str, Any]

_HEADLINE = ("jobdb-full", "flock-fsync", "sqlite-full", "simplebroker", "huey")


def _ways(results: Results) -> list[str]:
    rows = []
    for about in results["ways"].values():
        notes = "; ".join(f"{verb}: {note}" for verb, note in about["notes"].items())
        rows.append([about["label"], about["durability"], about["settings"], about["version"], notes])
    lines = [
        "## The implementations and their durability",
        "",
        "Durability: *full*, acknowledged writes survive power loss; *normal*, they survive the death of the",
        "process, and power loss may take the last ones but leaves the file intact; *none*, as normal, without a",
        "promise that the file stays intact. Compare implementations of the same durability only.",
        "",
        *table(("implementation", "durability", "settings", "version", "its verbs"), rows),
        "Not measured, because the implementation lacks it:",
        "",
    ]
    for about in results["ways"].values():
        reasons: dict[str, list[str]] = {}
        for verb, reason in about["absent"].items():
            reasons.setdefault(reason, []).append(verb)
        if reasons:
            lines.append(f"- {about['label']}: " + "; ".join(f"{', '.join(v)} ({r})" for r, v in reasons.items()))
    for name, reason in results["missing"].items():
        lines.append(f"- {name}, all of it: {reason}")
    return [*lines, ""]


def _failed(one: Mapping[str, Any]) -> str:
    return f"failed: {one['failures'][0]}" if one["failures"] else ""


def _series(results: Results) -> list[str]:
    lines = ["## All measurements", ""]
    for operation in (*OPERATIONS, *BATCH_OPERATIONS):
        chosen = [one for one in results["series"] if one["operation"] == operation]
        cells = sorted({(one["size"], one["workers"]) for one in chosen})
        if cells:
            lines += [f"### {operation}", ""]
        for size, workers in cells:
            rows = []
            cell = [one for one in chosen if (one["size"], one["workers"]) == (size, workers)]
            base = next((one["per_sec"]["median"] for one in cell if one["way"] == "jobdb-full"), 0)
            for one in sorted(cell, key=lambda each: -each["per_sec"]["median"]):
                rate = one["per_sec"]
                rows.append(
                    [
                        results["ways"][one["way"]]["label"],
                        results["ways"][one["way"]]["durability"],
                        number(rate["median"]),
                        f"{number(rate['min'])}–{number(rate['max'])}",
                        f"{base / rate['median']:.2f}×" if rate["median"] and base else "",
                        ms(one["p50_us"]["median"]),
                        ms(one["p99_us"]["median"]),
                        ms(one["longest_us"]["max"]),
                        f"{one['slowest_fastest']['median']:.2f}" if workers > 1 else "",
                        str(one["errors"]) + _failed(one),
                    ]
                )
            head = (
                "implementation",
                "durability",
                "per second",
                "lowest–highest",
                "jobdb full is",
                "p50",
                "p99",
                "longest",
                "slowest/fastest process",
                "timed out",
            )
            lines += [
                f"{workers} process{'es' if workers > 1 else ''}, {size:,} jobs:",
                "",
                *table(head, rows),
            ]
    return lines


def _other_measurements(results: Results) -> list[str]:
    lines = []
    if starts := results.get("cold_start"):
        base = starts["import typer"]["median"]
        rows = [
            [name, f"{one['median'] * 1000:.0f} ms", f"{one['min'] * 1000:.0f}–{one['max'] * 1000:.0f} ms",
             f"{one['median'] / base:.2f}×"]
            for name, one in starts.items()
        ]  # fmt: skip
        lines += [
            "## Commands, from start to end",
            "",
            "The old publish script is measured without sending to a broker, but with the import for it.",
            "",
            *table(("command", "median", "lowest–highest", "of import typer"), rows),
        ]
    if found := results.get("mqtt"):
        from . import mqtt_throughput

        lines += mqtt_throughput.lines(found)
    if wakeup := results.get("wakeup"):
        rows = [
            [name, *(f"{wakeup[key][part]:.2f} ms" for part in ("median", "p99", "max"))]
            for name, key in (("wait", "wait_ms"), ("subscribe", "subscribe_ms"))
        ]
        lines += [
            "## Waking up",
            "",
            "The time from the writer's return to that of a reader in another process.",
            "",
            *table(("verb", "median", "p99", "longest"), rows),
            "A process that waits while nothing happens uses "
            f"{wakeup['idle_share_of_a_processor'] * 100:.2f} % of one processor.",
            "",
        ]
    if found := results.get("import"):
        ratio = found["bare_jobs_per_sec"]["median"] / found["import_jobs_per_sec"]["median"]
        lines += [
            "## Import",
            "",
            f"{found['jobs']:,} jobs in {found['files']:,} files: the bare loop that reads and parses "
            f"{number(found['bare_jobs_per_sec']['median'])} jobs/s, the import "
            f"{number(found['import_jobs_per_sec']['median'])} jobs/s, {ratio:.2f}× the time of the bare loop.",
            "",
        ]
    for name, error in results.get("failures", {}).items():
        lines += [f"**{name} failed:** {error}", ""]
    return lines


_METHOD = """## How it is measured

The processes are started once and used for all implementations. Each run opens its registry again and warms up, and
all its processes start at the same time of the monotonic clock. In each repetition the implementations take turns, each
time with another one first. Each run has a fresh copy of a prepared registry (70 % of the jobs have ended, 10 % are
running, 20 % are pending; random ids); registries of 10,000 jobs and more are reused. *claim* drains the pending jobs
in rounds; between rounds they are made pending again, unmeasured. *complete* ends jobs that were prepared beforehand,
*accept* takes events that were signed beforehand; *publish* signs if the implementation has signatures. A call that is
still running at the end is waited for: its latency counts, its work does not. "Timed out" counts calls that ended with
the implementation's own busy error. Rates are medians of the repetitions; p50 and p99 are medians of the repetitions'
percentiles over all processes; the longest is the longest of all. The raw floor replays the statements and parameters
that jobdb was recorded to run, in a bare apsw loop with the named synchronous setting; it does not sign, check or
encrypt.
"""


def headline(results: Results, drawn: Mapping[str, str]) -> str:
    """Return the table and the plot for the README."""
    rows = []
    for adapter in _HEADLINE:
        cells = {
            (one["operation"], one["workers"], one["size"]): one
            for one in results["series"]
            if one["way"] == adapter and not one["failures"]
        }
        publish, claim = cells.get(("publish", 8, 1000)), cells.get(("claim", 8, 1000))
        large = cells.get(("claim", 1, 100_000))
        if publish or claim:
            rows.append(
                [
                    results["ways"][adapter]["label"],
                    number(publish["per_sec"]["median"]) if publish else "–",
                    ms(publish["p99_us"]["median"]) if publish else "–",
                    ms(publish["longest_us"]["max"]) if publish else "–",
                    f"{publish['slowest_fastest']['median']:.2f}" if publish else "–",
                    number(claim["per_sec"]["median"]) if claim else "–",
                    number(large["per_sec"]["median"]) if large else "–",
                ]
            )
    head = (
        "full durability, 8 processes",
        "publish/s",
        "p99",
        "longest",
        "slowest/fastest",
        "claim/s",
        "claim/s at 100,000 jobs, 1 process",
    )
    lines = table(head, rows)
    if "throughput" in drawn:
        lines += [f"![Throughput over the number of processes](benchmarks/results/{drawn['throughput']})", ""]
    return "\n".join(lines)


def _workers(folder: Path, quick: bool) -> list[str]:
    """Return the part about the workers, from the results of their own benchmark, if it has been run."""
    from .workers.report import summary
    from .workers.run import load

    found = load(folder, quick=quick)
    return summary(found) if found else []


def write(results: Results, folder: Path) -> None:
    """Write REPORT.md, headline.md and the plots; the quick plan's report has its own folder and no headline."""
    quick = results["plan"] == "quick"
    target = folder / "quick" if quick else folder
    target.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(results, target)
    pictures = [line for name in drawn.values() for line in (f"![{name}]({name})", "")]
    text = "\n".join(
        [
            "# Benchmarks",
            "",
            "Generated by `python -m benchmarks`" + (" --quick" if quick else "") + "; do not edit.",
            "",
            *targets(results),
            *pictures,
            *machine(results),
            *_ways(results),
            _METHOD,
            *_other_measurements(results),
            *_workers(folder, quick),
            *_series(results),
        ]
    )
    (target / "REPORT.md").write_text(text.rstrip() + "\n", "utf-8")
    if not quick:
        (target / "headline.md").write_text(headline(results, drawn), "utf-8")
