"""The project's performance targets, each evaluated on the results of one run.

Pure: takes the results as __main__.py writes them, returns what report.py prints. A target whose measurements are not
in the results (the quick plan leaves some out) is "not measured", never "met".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Results = Mapping[str, Any]

FULL, NORMAL, FLOCK, PLAIN = "jobdb-full", "jobdb-normal", "flock-fsync", "sqlite-full"
RAW, RAW_NORMAL = "raw-full", "raw-normal"
_RAW_VERBS = ("register", "claim", "publish", "accept", "complete", "list_page")
_LARGE_VERBS = ("claim", "publish", "accept", "list_page")


class NotMeasured(Exception):
    """The results do not contain a measurement; the message names it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target with its bar, the measured value, and whether the bar is met (None: not measured); if not, why."""

    name: str
    bar: str
    measured: str
    met: bool | None
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "bar": self.bar, "measured": self.measured, "met": self.met, "why": self.why}


def series(results: Results, adapter: str, operation: str, workers: int, size: int) -> Mapping[str, Any]:
    """Return the measurements of one adapter in one cell.

    Raises:
        NotMeasured: the run had no such cell, or the adapter failed in it.
    """
    for one in results.get("series", ()):
        if (one["way"], one["operation"], one["workers"], one["size"]) == (adapter, operation, workers, size):
            if one["failures"]:
                raise NotMeasured(f"{adapter} failed in {operation}")
            found: Mapping[str, Any] = one
            return found
    raise NotMeasured(f"{operation} by {adapter}, {workers} processes, {size:,} jobs")


def rate(results: Results, adapter: str, operation: str, workers: int, size: int) -> float:
    """Return the median calls (or items) per second."""
    return float(series(results, adapter, operation, workers, size)["per_sec"]["median"])


def _ratio(above: float, below: float, name: str) -> float:
    if not below:
        raise NotMeasured(f"{name} did nothing in the time")
    return above / below


def _speedup(results: Results, operation: str, other: str, size: int) -> float:
    return _ratio(
        rate(results, FULL, operation, 8, size),
        rate(results, other, operation, 8, size),
        f"{operation} by {other}",
    )


def _at_least(
    name: str, bar: float, measure: Callable[[], float], text: Callable[[float], str] = lambda v: f"{v:.1f}×"
) -> Verdict:
    try:
        value = measure()
    except NotMeasured as missing:
        return Verdict(name, f"≥ {bar:g}", f"not measured: {missing}", None)
    return Verdict(name, f"≥ {bar:g}", text(value), value >= bar)


def _all_at_most(name: str, bar: float, parts: Sequence[tuple[str, Callable[[], float]]]) -> Verdict:
    """Return a verdict that is met when every part is at most the bar, and not measured when one is missing."""
    texts, worst, missing = [], 0.0, False
    for label, measure in parts:
        try:
            value = measure()
        except NotMeasured as error:
            texts.append(f"{label} not measured ({error})")
            missing = True
        else:
            texts.append(f"{label} {value:.2f}×")
            worst = max(worst, value)
    met = False if worst > bar else None if missing else True
    return Verdict(name, f"≤ {bar:g}", ", ".join(texts), met)


def _slowdown(results: Results, adapter: str, floor: str, operation: str) -> Callable[[], float]:
    def measure() -> float:
        least = rate(results, floor, operation, 1, 1000)
        if not least:
            raise NotMeasured(f"{floor} ran out of {operation} while it warmed up")
        return _ratio(least, rate(results, adapter, operation, 1, 1000), adapter)

    return measure


def _growth(results: Results, operation: str) -> Callable[[], float]:
    def measure() -> float:
        return _ratio(rate(results, FULL, operation, 1, 1000), rate(results, FULL, operation, 1, 1_000_000), operation)

    return measure


def _wait_share(results: Results, workers: int) -> float:
    ours = float(series(results, FULL, "publish", workers, 1000)["longest_us"]["max"])
    theirs = float(series(results, PLAIN, "publish", workers, 1000)["longest_us"]["max"])
    return _ratio(ours, theirs, "plain SQLite")


def _longest_wait(results: Results) -> Verdict:
    name = "longest wait of publish at 8 and 32 writers, relative to plain SQLite FULL"
    shares = []
    try:
        for workers in (8, 32):
            shares.append((workers, _wait_share(results, workers)))
    except NotMeasured as missing:
        return Verdict(name, "≤ 1/20", f"not measured: {missing}", None)
    text = ", ".join(f"{workers} writers 1/{1 / share:.0f}" for workers, share in shares if share)
    return Verdict(name, "≤ 1/20", text, all(share <= 1 / 20 for _, share in shares))


def _fairness(results: Results) -> Verdict:
    name = "slowest/fastest writer of publish at 8 and 32 writers"
    try:
        shares = [
            (workers, float(series(results, FULL, "publish", workers, 1000)["slowest_fastest"]["median"]))
            for workers in (8, 32)
        ]
    except NotMeasured as missing:
        return Verdict(name, "≥ 0.6", f"not measured: {missing}", None)
    text = ", ".join(f"{workers} writers {share:.2f}" for workers, share in shares)
    return Verdict(name, "≥ 0.6", text, all(share >= 0.6 for _, share in shares))


def _batches(results: Results) -> list[Verdict]:
    def measure(operation: str) -> Callable[[], float]:
        def ratio() -> float:
            single = rate(results, FULL, operation, 1, 1000)
            return _ratio(rate(results, FULL, f"{operation}_100", 1, 1000), single, operation)

        return ratio

    return [
        _at_least(f"{operation} in batches of 100 compared with one by one, full", 20, measure(operation))
        for operation in ("register", "publish", "accept")
    ]


def _ahead_of_peers(results: Results) -> Verdict:
    """Compare with every peer of the same durability, in every operation that both have, at 8 processes."""
    name = "ahead of every SQLite peer of full durability, 8 processes, 1,000 jobs"
    behind, compared, least = [], 0, float("inf")
    for one in results.get("series", ()):
        adapter = one["way"]
        about = results.get("ways", {}).get(adapter, {})
        others = adapter not in (FULL, NORMAL, "postgresql", FLOCK) and about.get("durability") == "full"
        if not others or one["workers"] != 8 or one["size"] != 1000 or one["failures"]:
            continue
        try:
            ratio = _speedup(results, one["operation"], adapter, 1000)
        except NotMeasured:
            continue
        compared += 1
        least = min(least, ratio)
        if ratio <= 1:
            behind.append(f"{one['operation']} of {adapter} ({ratio:.2f}×)")
    if not compared:
        return Verdict(name, "> 1", "not measured: no peer at 8 processes", None)
    text = f"{compared} comparisons, the closest {least:.2f}×" + (f"; behind: {', '.join(behind)}" if behind else "")
    return Verdict(name, "> 1", text, not behind)


def _cold_start(results: Results) -> Verdict:
    name = "jobdb publish as a command, relative to python -c 'import typer'"
    starts = results.get("cold_start", {})
    try:
        value = _ratio(starts["jobdb publish"]["median"], starts["import typer"]["median"], "import typer")
    except (KeyError, NotMeasured) as missing:
        return Verdict(name, "≤ 1.5", f"not measured: {missing}", None)
    return Verdict(name, "≤ 1.5", f"{value:.2f}×", value <= 1.5)


def _explain_lock_handover(results: Results, operation: str) -> str:
    """Explain what a fair lock costs, compared with one process that keeps the lock."""
    try:
        alone = float(series(results, FULL, operation, 1, 1000)["cpu_us_each"]["median"])
        among = float(series(results, FULL, operation, 8, 1000)["cpu_us_each"]["median"])
        fair = float(series(results, FULL, operation, 8, 1000)["slowest_fastest"]["median"])
        hog = float(series(results, PLAIN, operation, 8, 1000)["slowest_fastest"]["median"])
    except (KeyError, NotMeasured):
        return ""
    return (
        "the lock is passed on after every commit, so each transaction begins in a process whose caches and database "
        f"pages are stale: a {operation} takes {among:.0f} µs of CPU time among 8 writers, {alone:.0f} µs alone. In "
        f"plain SQLite the process that has the lock keeps it (slowest/fastest {hog:.2f}, here {fair:.2f})"
    )


def _explain_verb_overhead(results: Results) -> str:
    """Explain what a publish does beside its statements, without and with a preceding wait for the disk."""
    why = (
        "the bare statements do not check arguments, sign, verify, encrypt, take turns with other processes or create "
        "objects; a list_page creates 50 objects of 25 fields"
    )
    try:
        times = {
            adapter: 1e6 / rate(results, adapter, "publish", 1, 1000) for adapter in (FULL, RAW, NORMAL, RAW_NORMAL)
        }
    except (NotMeasured, ZeroDivisionError):
        return why
    return (
        f"{why}. That takes {times[NORMAL] - times[RAW_NORMAL]:.0f} µs of a publish at normal, and "
        f"{times[FULL] - times[RAW]:.0f} µs at full, where each begins after a wait for the disk with cold caches"
    )


def _explain_batch_cost(results: Results, operation: str) -> str:
    """Explain what remains of an item's time when 100 items share a sync, and what the bare statements take of it."""
    batch = f"{operation}_100"
    try:
        single = 1e6 / rate(results, FULL, operation, 1, 1000)
        item = 1e6 / rate(results, FULL, batch, 1, 1000)
    except (NotMeasured, ZeroDivisionError):
        return ""
    why = (
        "a batch shares the transaction and the sync, but each item is still checked, signed or verified and written: "
        f"{item:.0f} of {single:.0f} µs"
    )
    try:
        bare_single = 1e6 / rate(results, RAW, operation, 1, 1000)
        bare_item = 1e6 / rate(results, RAW, batch, 1, 1000)
    except (NotMeasured, ZeroDivisionError):
        return why
    return (
        f"{why}. The bare statements of a batch take {bare_item:.0f} µs per item: if they were all, a batch would be "
        f"{single / bare_item:.1f}× as fast as one by one, and {bare_single / bare_item:.1f}× as fast as the bare "
        "statements one by one"
    )


def evaluate(results: Results) -> list[Verdict]:
    """Return all targets in the order of the report, each that is not met with the reason."""
    handover_reason = _explain_lock_handover(results, "publish")
    reasons = {
        "publish against": handover_reason,
        "claim against": _explain_lock_handover(results, "claim"),
        "ahead of every": handover_reason,
        "time per verb, one process": _explain_verb_overhead(results),
        **{f"{verb} in batches": _explain_batch_cost(results, verb) for verb in ("register", "publish", "accept")},
    }
    return [
        replace(one, why=next((why for start, why in reasons.items() if one.name.startswith(start)), ""))
        if one.met is False
        else one
        for one in _verdicts(results)
    ]


def _verdicts(results: Results) -> list[Verdict]:
    return [
        _at_least(
            "publish against flock+fsync, 8 processes, 1,000 jobs, full",
            6,
            lambda: _speedup(results, "publish", FLOCK, 1000),
        ),
        _at_least(
            "claim against flock+fsync, 8 processes, 1,000 jobs, full",
            20,
            lambda: _speedup(results, "claim", FLOCK, 1000),
        ),
        _at_least(
            "publish against plain SQLite FULL, 8 processes, 1,000 jobs",
            2,
            lambda: _speedup(results, "publish", PLAIN, 1000),
        ),
        _at_least(
            "claim against plain SQLite FULL, 8 processes, 1,000 jobs",
            2,
            lambda: _speedup(results, "claim", PLAIN, 1000),
        ),
        _at_least(
            "claim against flock+fsync, 8 processes, 100,000 jobs, full",
            500,
            lambda: _speedup(results, "claim", FLOCK, 100_000),
            lambda v: f"{v:.0f}×",
        ),
        _longest_wait(results),
        _fairness(results),
        _ahead_of_peers(results),
        _all_at_most(
            "time per verb, one process, full, relative to the raw floor",
            1.5,
            [(verb, _slowdown(results, FULL, RAW, verb)) for verb in _RAW_VERBS],
        ),
        _all_at_most(
            "time per verb, one process, normal, relative to the raw floor",
            2.5,
            [(verb, _slowdown(results, NORMAL, RAW_NORMAL, verb)) for verb in _RAW_VERBS],
        ),
        _all_at_most(
            "time per verb at 1,000,000 jobs, relative to 1,000 jobs",
            1.5,
            [(verb, _growth(results, verb)) for verb in _LARGE_VERBS],
        ),
        *_batches(results),
        _cold_start(results),
    ]
