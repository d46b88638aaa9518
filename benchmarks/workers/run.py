"""One run of the benchmark of the workers, and its results on the disk.

Called by __main__.py, the tests and the whole benchmark's report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import machine
from . import commands, report, targets
from .series import Plan, Series, available


def measure(plan: Plan, names: list[str], folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Take all measurements in an existing folder, which PostgreSQL's account must get through to."""
    began = time.monotonic()
    results: dict[str, Any] = {
        "plan": plan.name,
        "jobs": plan.jobs,
        "rounds": plan.rounds,
        "slots": plan.slots,
        "started": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine.describe(folder),
    }
    usable, missing = available(names)
    results |= Series(usable, plan, folder, say).run()
    results["commands"], without = commands.measure(
        folder / "commands", plan.command_jobs, plan.command_rounds, plan.slots
    )
    say(f"commands: {', '.join(results['commands'])}")
    results["missing"] = missing | without
    results["took_sec"] = time.monotonic() - began
    return results


def load(folder: Path, *, quick: bool) -> dict[str, Any] | None:
    """Return the results of the last run with its targets evaluated; None if there was none."""
    path = folder / ("workers-quick.json" if quick else "workers.json")
    if not path.exists():
        return None
    results: dict[str, Any] = json.loads(path.read_text("utf-8"))
    results["targets"] = [verdict.as_dict() for verdict in targets.evaluate(results)]
    return results


def save(results: dict[str, Any], folder: Path, *, quick: bool) -> None:
    """Write the results and the report; the quick plan's report has its own folder."""
    results["targets"] = [verdict.as_dict() for verdict in targets.evaluate(results)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("workers-quick.json" if quick else "workers.json")
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    report.write(results, folder / "quick" if quick else folder)
