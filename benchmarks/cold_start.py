"""Measure how long commands take from the start of the process to its end, interleaved.

Called by __main__.py. The references are ``python -c "import typer"`` and a script that does what the old publish
script did. The measured command is the installed ``jobdb`` at its default durability.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import sample_data
from .latencies import spread

_SEC = 60


def _timed(command: list[str], environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=dict(environment), check=True, capture_output=True, timeout=_SEC)
    return time.perf_counter() - began


def _old_registry(folder: Path) -> str:
    folder.mkdir()
    record = sample_data.record(random.Random(1), 1)
    (folder / f"{record['job_id']}.json").write_text(json.dumps(record), "utf-8")
    return str(record["job_id"])


def measure(folder: Path, times: int) -> dict[str, Any]:
    """Return the seconds of each command as spreads, by name."""
    from .adapters.jobdb import benchmark_vault

    folder.mkdir(mode=0o700)
    benchmark_vault(folder)
    jobdb = str(Path(sys.executable).with_name("jobdb"))
    database = f"sqlite:///{folder / 'cold.db'}"
    environment = os.environ | {"JOBDB_URL": database, "JOBDB_KEY_FILE": str(folder / "master.key")}
    # As pip installs it, with compiled bytecode: without it the compiler would be measured too.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    old_job = _old_registry(folder / "old")
    subprocess.run([jobdb, "init"], env=environment, check=True, capture_output=True, timeout=_SEC)
    job = subprocess.run(
        [jobdb, "register", "--agent", "codex", "sort ten problems"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=_SEC,
    ).stdout.strip()
    old = [sys.executable, str(Path(__file__).with_name("old_publish.py")), str(folder / "old"), old_job]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import typer": [sys.executable, "-c", "import typer"],
        "old publish script": [*old, "progress", "step"],
        "jobdb --help": [jobdb, "--help"],
        "jobdb publish": [jobdb, "publish", job, "progress", "--detail", "step"],
        "jobdb show": [jobdb, "show", job, "--json"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(times + 1):
        for name, command in commands.items():
            taken[name].append(_timed(command, environment))
    return {name: spread(values[1:]) for name, values in taken.items()}
