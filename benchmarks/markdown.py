"""The parts that the reports share: numbers, tables, targets, the machine.

Pure. Called by report.py and workers/report.py with the results of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Results = Mapping[str, Any]


def number(value: float) -> str:
    """Return a number with three significant digits or more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ms(us: float) -> str:
    """Return microseconds as milliseconds."""
    return f"{number(us / 1000)} ms"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table and an empty one."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def targets(results: Results) -> list[str]:
    """Return the targets, each met or not, and why not."""
    answer = {True: "**met**", False: "**not met**", None: "not measured"}
    rows = [[one["name"], one["bar"], one["measured"], answer[one["met"]]] for one in results["targets"]]
    lines = ["## Targets", "", *table(("target", "bar", "measured", ""), rows)]
    reasons: dict[str, list[str]] = {}
    for one in results["targets"]:
        if one.get("why"):
            reasons.setdefault(one["why"], []).append(one["name"])
    if reasons:
        lines += ["Why the others are not met:", ""]
        lines += [f"- {'; '.join(names)}: {why}." for why, names in reasons.items()]
        lines.append("")
    return lines


def machine(results: Results) -> list[str]:
    """Return when and where the run was, and with which versions."""
    found = results["machine"]
    sync = found["append_4k_and_fdatasync_us"]
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return [
        "## Machine and date",
        "",
        f"{results['started']}, plan *{results['plan']}*, {results['took_sec']:.0f} s. "
        f"{found['processor']}, {found['cores']} cores, {found['memory']}; {found['system']}; "
        f"{found['file_system']['type']} ({found['file_system']['options']}); load before: "
        f"{found['load_before']:.2f}. Appending 4 KiB and fdatasync: median {sync['median']:.0f} µs, p99 "
        f"{sync['p99']:.0f} µs, longest {sync['longest']:.0f} µs. Python {found['python']}, its SQLite "
        f"{found['sqlite_of_python']}, apsw's SQLite {found['sqlite_of_apsw']}; {packages}.",
        "",
    ]
