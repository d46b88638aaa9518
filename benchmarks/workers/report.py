"""Write the report of a run of the workers: workers.md, and its part of the whole benchmark's report.

Called by __main__.py and the whole benchmark's report.py; every number in the text comes from the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..markdown import machine, number, table, targets
from .targets import OWN, rate

Results = Mapping[str, Any]

_METHOD = """## How it is measured

Each peer's queue is filled once, and each run gets a fresh copy of it and a process of its own. In each round all peers
take a turn, each time with another one first. The handler is empty: it notes the job's number and the time. The rate is
taken from the start of the handler after a tenth of the jobs to that of the last one; a slot starts a job when it is
done with the one before. The run counts only if every job was handled exactly once and, where the queue keeps it, the
end of every job is recorded. CPU time is that of the worker with its child processes, and separately that of the
database's server, over the same part of the run. "Equal" means: what is done is synced, with its end; two numbers can
be compared directly only then. The delay of a start is the time from the registration's return, in another process, to
the handler's first statement; the pauses between jobs are random, 20 to 80 ms.
"""


def _rates(results: Results) -> list[str]:
    lines = ["## Jobs per second with an empty handler", ""]
    for engine in ("SQLite", "PostgreSQL"):
        own = f"jobdb-{engine.lower()}"
        names = [name for name in results["rates"] if OWN[results["peers"][name]["engine"]] == own]
        ours = rate(results, own)
        rows = []
        for name in sorted(names, key=lambda each: -(rate(results, each) or 0)):
            about, found = results["peers"][name], results["rates"][name]
            per_sec = found["per_sec"]
            server = found["server_cpu_us_each"]["median"]
            rows.append(
                [
                    about["label"],
                    number(per_sec["median"]),
                    f"{number(per_sec['min'])}–{number(per_sec['max'])}",
                    f"{ours / per_sec['median']:.2f}×" if ours else "",
                    f"{found['cpu_us_each']['median']:.0f} µs" + (f" + {server:.0f} µs" if server else ""),
                    "equal" if about["equal"] else "less",
                    f"{results['slots']} {about['slots']}",
                ]
            )
        jobs = results["jobs"]
        on = engine if engine == "PostgreSQL" else "a file, or Redis with a synced log"
        head = ("worker", "jobs/s", "lowest–highest", "jobdb is", "CPU per job + server", "durability", "slots")
        lines += [f"On {on}; {jobs:,} jobs, {results['rounds']} rounds:", "", *table(head, rows)]
    return lines


def _peers(results: Results) -> list[str]:
    rows = [
        [
            about["label"],
            about["durability"] + ("" if about["ends_recorded"] else ", the end is not recorded"),
            about["syncs"],
            about["if_worker_dies"],
            about["settings"],
            about["version"],
        ]
        for about in results["peers"].values()
    ]
    head = ("worker", "durability", "syncs per job", "if the worker dies", "settings", "version")
    lines = ["## The workers and their durability", "", *table(head, rows)]
    left_out = results["missing"] | results["failures"]
    if left_out:
        lines += ["Not measured:", "", *(f"- {name}: {reason}" for name, reason in left_out.items()), ""]
    return lines


def _waiting(results: Results) -> list[str]:
    lines, about = [], results["peers"]
    if results["idle"]:
        rows = [
            [about[name]["label"], *(f"{found[part] * 100:.2f} %" for part in ("worker_share", "server_share"))]
            for name, found in results["idle"].items()
        ]
        seconds = max(found["seconds"] for found in results["idle"].values())
        head = ("worker", "its share of a core", "the server's")
        lines += [f"## Idle for {seconds:.0f} s", "", *table(head, rows)]
    if results["start_ms"]:
        rows = [
            [about[name]["label"], *(f"{found[part]:.1f} ms" for part in ("median", "p99", "max"))]
            for name, found in results["start_ms"].items()
        ]
        head = ("worker", "median", "p99", "longest")
        lines += ["## From a job's registration to the start of its handler", "", *table(head, rows)]
    return lines


def _commands(results: Results) -> list[str]:
    if not results["commands"]:
        return []
    rows = [
        [
            name,
            f"{found['cpu_ms_each']['median']:.2f} ms",
            f"{found['wall_ms_each']['median']:.2f} ms",
            f"{found['one_job_cpu_ms']['median']:.0f} ms",
        ]
        for name, found in results["commands"].items()
    ]
    jobs = next(iter(results["commands"].values()))["jobs"]
    head = (f"command, {results['slots']} at a time", "CPU per job", "time per job", "CPU of a run with one job")
    return [
        f"## Jobs that are commands: {jobs} times `true`",
        "",
        "The start of the tool itself is included. parallel and xargs record nothing, and sync nothing.",
        "",
        *table(head, rows),
    ]


def summary(results: Results) -> list[str]:
    """Return the part for the whole benchmark's report."""
    lines = [line.replace("## ", "## Workers: ", 1) if line.startswith("## ") else line for line in targets(results)]
    return [*lines, "All numbers of the workers, with their durability and settings: [workers.md](workers.md).", ""]


def write(results: Results, folder: Path) -> None:
    """Write workers.md."""
    quick = "" if results["plan"] == "full" else f" --{results['plan']}"
    text = "\n".join(
        [
            "# Benchmark of the workers",
            "",
            f"Generated by `python -m benchmarks.workers{quick}`; do not edit.",
            "",
            *targets(results),
            *_rates(results),
            *_waiting(results),
            *_commands(results),
            *machine(results),
            *_peers(results),
            _METHOD,
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workers.md").write_text(text.rstrip() + "\n", "utf-8")
