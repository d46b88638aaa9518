"""Draw the plots of a run: throughput and waits over the number of processes, cost over the size, latencies.

Called by report.py with the results; needs matplotlib. Each adapter has one colour, the same in every plot; jobdb is
drawn last and thick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .latencies import bucket_us

_COLOURS = {
    "jobdb-full": "#c1272d",
    "jobdb-normal": "#f0888c",
    "flock-fsync": "#3b4252",
    "flock-nosync": "#8f97a8",
    "sqlite-full": "#1f77b4",
    "sqlite-normal": "#8ec1ea",
    "huey": "#2ca02c",
    "persist-queue": "#9467bd",
    "litequeue": "#d8b365",
    "litequeue-full": "#8c6d31",
    "simplebroker": "#17a3a3",
    "simplebroker-normal": "#8fdada",
    "postgresql": "#e377c2",
    "raw-full": "#000000",
    "raw-normal": "#777777",
}
_OURS = ("jobdb-full", "jobdb-normal")
_NOT_DRAWN = ("raw-full", "raw-normal")

Results = Mapping[str, Any]
Value = Callable[[Mapping[str, Any]], float]
Lines = Mapping[str, list[tuple[float, float]]]


def _lines(
    results: Results, operation: str, along: str, fixed: Mapping[str, int], value: Value
) -> dict[str, list[tuple[float, float]]]:
    """Return each adapter's points in order, where it has two or more."""
    points_by_adapter: dict[str, list[tuple[float, float]]] = {}
    for one in results["series"]:
        if one["operation"] != operation or one["way"] in _NOT_DRAWN or one["failures"]:
            continue
        if any(one[name] != wanted for name, wanted in fixed.items()):
            continue
        points_by_adapter.setdefault(one["way"], []).append((one[along], value(one)))
    drawn = {adapter: sorted(points) for adapter, points in points_by_adapter.items() if len(points) > 1}
    return dict(sorted(drawn.items(), key=lambda item: item[0] in _OURS))


def _draw(axes: Any, results: Results, lines: Lines) -> None:
    for adapter, points in lines.items():
        axes.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            marker="o",
            markersize=4,
            linewidth=2.6 if adapter in _OURS else 1.4,
            linestyle="-" if results["ways"][adapter]["durability"] == "full" else "--",
            color=_COLOURS[adapter],
            label=results["ways"][adapter]["label"],
        )
    axes.set_yscale("log")
    axes.grid(True, which="major", alpha=0.3)


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    label: str
    lines: Lines


def _figure(columns: int, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(5.4 * columns, height), squeeze=False, layout="constrained")
    return figure, axes[0]


def _draw_panels(results: Results, panels: list[_Panel], across: str, path: Path, powers_of_two: bool) -> str | None:
    """Draw the panels that have lines, side by side, with one legend below; return the file's name."""
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return None
    figure, axes = _figure(len(panels), 5.2)
    labels: dict[str, Any] = {}
    for one, panel in zip(axes, panels, strict=True):
        _draw(one, results, panel.lines)
        one.set_xscale("log", base=2 if powers_of_two else 10)
        if powers_of_two:
            ticks = sorted({point[0] for points in panel.lines.values() for point in points})
            one.set_xticks(ticks, [str(int(tick)) for tick in ticks])
        one.set_xlabel(across)
        one.set_ylabel(panel.label)
        one.set_title(panel.title)
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=2 * len(panels), fontsize=8)
    figure.savefig(path, dpi=130)
    return path.name


def throughput(results: Results, folder: Path) -> str | None:
    """Draw calls per second over the number of processes, for publish and claim."""
    panels = [
        _Panel(
            f"{operation}, 1,000 jobs",
            "calls per second",
            _lines(results, operation, "workers", {"size": 1000}, lambda one: float(one["per_sec"]["median"])),
        )
        for operation in ("publish", "claim")
    ]
    return _draw_panels(results, panels, "processes", folder / "throughput.png", True)


def waits(results: Results, folder: Path) -> str | None:
    """Draw p99 and longest latency of publish over the number of processes."""
    values: list[tuple[str, Value]] = [
        ("p99, ms", lambda one: float(one["p99_us"]["median"]) / 1000),
        ("longest of all repetitions, ms", lambda one: float(one["longest_us"]["max"]) / 1000),
    ]
    panels = [
        _Panel("publish, 1,000 jobs", label, _lines(results, "publish", "workers", {"size": 1000}, value))
        for label, value in values
    ]
    return _draw_panels(results, panels, "processes", folder / "waits.png", True)


def sizes(results: Results, folder: Path) -> str | None:
    """Draw the time of a claim and of a publish (the next seq) over the size of the registry; logarithmic axes."""

    def each_us(one: Mapping[str, Any]) -> float:
        return 1e6 / max(float(one["per_sec"]["median"]), 1e-9)

    panels = [
        _Panel(
            f"{operation}, one process",
            "µs per call",
            _lines(results, operation, "size", {"workers": 1}, each_us),
        )
        for operation in ("claim", "publish")
    ]
    return _draw_panels(results, panels, "jobs in the registry", folder / "sizes.png", False)


def distribution(results: Results, folder: Path) -> str | None:
    """Draw the share of publish calls that took longer than a time, 8 processes; logarithmic axes show the tail."""
    chosen = [
        one
        for one in results["series"]
        if (one["operation"], one["workers"], one["size"]) == ("publish", 8, 1000)
        and one["histogram"]
        and not one["failures"]
    ]
    if not chosen:
        return None
    figure, axes = _figure(1, 4.8)
    for one in sorted(chosen, key=lambda each: each["way"] in _OURS):
        counts = {int(bucket): count for bucket, count in one["histogram"].items()}
        total, seen, xs, ys = sum(counts.values()), 0, [], []
        for bucket in sorted(counts):
            xs.append(bucket_us(bucket) / 1000)
            ys.append((total - seen) / total)
            seen += counts[bucket]
        about = results["ways"][one["way"]]
        axes[0].step(
            xs,
            ys,
            where="post",
            color=_COLOURS[one["way"]],
            linewidth=2.6 if one["way"] in _OURS else 1.4,
            linestyle="-" if about["durability"] == "full" else "--",
            label=about["label"],
        )
    axes[0].set_xscale("log")
    axes[0].set_yscale("log")
    axes[0].set_xlabel("latency, ms")
    axes[0].set_ylabel("share of calls that took longer")
    axes[0].set_title("publish, 8 processes, 1,000 jobs")
    axes[0].grid(True, which="major", alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(folder / "distribution.png", dpi=130)
    return "distribution.png"


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw all plots that the results have data for; return the file names by kind."""
    kinds = {"throughput": throughput, "waits": waits, "sizes": sizes, "distribution": distribution}
    drawn = {kind: make(results, folder) for kind, make in kinds.items()}
    return {kind: name for kind, name in drawn.items() if name}
