"""Run a plan; write the results, the report, the README's headline table and the plots: ``python -m benchmarks``.

The data must be on a disk (``--folder``); a folder in memory is refused. ``--report`` only writes the report and the
plots again, from existing results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import machine, plan, report, targets
from .adapters import ADAPTERS
from .harness import Pool, Runner, describe_adapters

_RESULTS = Path(__file__).with_name("results")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _available(names: list[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the adapters that can run here, and the reason for each that cannot."""
    available, missing = [], {}
    for name in names:
        try:
            reason = ADAPTERS[name].load().reason_unavailable()
        except ImportError as error:
            reason = f"not installed: {error}"
        if reason:
            missing[name] = reason
        else:
            available.append(name)
    return tuple(available), missing


def _run_measurement(results: dict[str, Any], name: str, measure: Callable[[], Any]) -> None:
    """Run one of the other measurements; a failure is shown in the report and in the exit code."""
    began = time.monotonic()
    try:
        results[name] = measure()
    except Exception as error:
        traceback.print_exc()
        results.setdefault("failures", {})[name] = f"{type(error).__name__}: {error}"
    _say(f"{name}: {time.monotonic() - began:.1f} s")


def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    names = arguments.ways.split(",") if arguments.ways else list(ADAPTERS)
    available, missing = _available(names)
    chosen = plan.quick(available) if arguments.quick else plan.full(available, million=arguments.million)
    began = time.monotonic()
    results: dict[str, Any] = {
        "plan": chosen.name,
        "started": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine.describe(folder),
        "ways": describe_adapters(chosen.adapters),
        "missing": missing,
    }
    with Pool(chosen.workers) as pool:
        results["series"] = Runner(pool, chosen, folder, _say).run()
    if "jobdb-full" in available:
        from . import cold_start, legacy_import, mqtt_throughput, wakeup

        _run_measurement(results, "cold_start", lambda: cold_start.measure(folder / "cold", chosen.cold_starts))
        if not mqtt_throughput.reason_unavailable():
            _run_measurement(results, "mqtt", lambda: mqtt_throughput.measure(folder / "mqtt", 3000, 100))
        _run_measurement(results, "wakeup", lambda: wakeup.measure(folder / "wakeup", chosen.wakeups, chosen.idle_sec))
        _run_measurement(
            results,
            "import",
            lambda: legacy_import.measure(folder / "import", chosen.import_jobs, chosen.import_repetitions),
        )
    results["took_sec"] = time.monotonic() - began
    results["targets"] = [verdict.as_dict() for verdict in targets.evaluate(results)]
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about one minute instead of about ten")
    parser.add_argument("--million", action="store_true", help="also a registry of a million jobs: ten minutes more")
    parser.add_argument("--folder", type=Path, help="where to put the data: a folder on a disk (default: ./build)")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="where to write results and report")
    parser.add_argument("--ways", help="only these adapters, comma-separated: " + ", ".join(ADAPTERS))
    parser.add_argument("--report", action="store_true", help="measure nothing; write the report again")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    name = "results-quick.json" if arguments.quick else "results.json"
    if not arguments.report:
        base = arguments.folder or Path("build")
        base.mkdir(parents=True, exist_ok=True)
        if machine.in_memory(base):
            parser.error(f"{base} is in memory, where a sync costs nothing; pass a folder on a disk with --folder")
        folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=base)).resolve()
        folder.chmod(0o711)  # PostgreSQL's account must get through to its own folder
        try:
            results = _measure(arguments, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        (arguments.results / name).write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    results = json.loads((arguments.results / name).read_text("utf-8"))
    results["targets"] = [verdict.as_dict() for verdict in targets.evaluate(results)]
    report.write(results, arguments.results)
    failed = [series for series in results["series"] if series["failures"]]
    for series in failed:
        _say(
            f"failed: {series['way']} {series['operation']} with {series['workers']} processes: {series['failures'][0]}"
        )
    return 1 if failed or results.get("failures") else 0


if __name__ == "__main__":
    # Workers are spawned with ``python -c``, which would look for its modules in the current folder first.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    sys.exit(main())
