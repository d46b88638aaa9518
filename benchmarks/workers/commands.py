"""The CPU time of a job that is a command: ``jobdb work -- true`` beside GNU parallel and xargs, for scale.

Called by series.py's callers. parallel and xargs keep no record of anything. All processes of a command count: the
measuring process adopts those that are left over and waits for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..latencies import spread
from .cpu import own_cpu_sec
from .processes import call

_LIMIT_SEC = 300.0
_PR_SET_CHILD_SUBREAPER = 36
_JOBDB = str(Path(sys.executable).with_name("jobdb"))


def usage(command: list[str], environment: Mapping[str, str], stdin: str) -> dict[str, float]:
    """Run a command to its end, and all that it leaves; return the wall and CPU seconds. In a process of its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, began = own_cpu_sec(), time.monotonic()
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as lines:
        lines.write(stdin.encode())
        lines.seek(0)
        process = subprocess.Popen(
            command, env=dict(environment), stdin=lines, stdout=subprocess.DEVNULL, stderr=errors
        )
        status = process.wait(_LIMIT_SEC)
        wall = time.monotonic() - began
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        if status:
            errors.seek(0)
            text = errors.read().decode("utf-8", "replace").strip()
            raise AssertionError(f"{command[0]} ended with {status}: {text[-500:]}")
    return {"wall_sec": wall, "cpu_sec": own_cpu_sec() - before}


class _JobdbWork:
    """Registers jobs and lets ``jobdb work`` run them; each run has a registry of its own."""

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder = folder
        self._slots = slots
        self._runs = 0

    def run(self, jobs: int) -> dict[str, float]:
        self._runs += 1
        folder = self._folder / f"registry-{self._runs}"
        call(_register, folder, jobs)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBDB_")} | {
            "JOBDB_URL": f"sqlite:///{folder / 'jobs.db'}",
            "JOBDB_KEY_FILE": str(folder / "master.key"),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as pip installs it, with compiled bytecode
        command = [_JOBDB, "work", "--agent", "benchmark", "-c", str(self._slots)]
        command += ["--log-dir", str(folder / "logs"), "--until-empty", "--", "true"]
        found: dict[str, float] = call(usage, command, environment, "", timeout_sec=_LIMIT_SEC + 60)
        completed = call(_completed, folder)
        if completed != jobs:
            raise AssertionError(f"jobdb work completed {completed} of {jobs} jobs")
        return found


def _register(folder: Path, jobs: int) -> None:
    from jobdb import NewJob, Registry

    from ..adapters.jobdb import benchmark_vault

    folder.mkdir(parents=True, mode=0o700)
    url = f"sqlite:///{folder / 'jobs.db'}"
    with Registry.open(url, create=True, vault=benchmark_vault(folder)) as registry:
        registry.register_many([NewJob(agent="benchmark", prompt=f"job {number}") for number in range(jobs)])


def _completed(folder: Path) -> int:
    """Return how many jobs completed in their first attempt."""
    from jobdb import JobStatus, Registry

    from ..adapters.jobdb import benchmark_vault

    with Registry.open(f"sqlite:///{folder / 'jobs.db'}", vault=benchmark_vault(folder)) as registry:
        return sum(job.attempt == 1 for job in registry.all_jobs(status=JobStatus.COMPLETED))


def _tool(command: list[str]) -> Callable[[int], dict[str, float]]:
    def run(jobs: int) -> dict[str, float]:
        stdin = "".join(f"{number}\n" for number in range(jobs))
        found: dict[str, float] = call(usage, command, dict(os.environ), stdin, timeout_sec=_LIMIT_SEC + 60)
        return found

    return run


def reason_unavailable(name: str) -> str:
    """Return why a command cannot be measured here; an empty text when it can."""
    if name == "jobdb work":
        return "" if subprocess.run([_JOBDB, "work", "--help"], capture_output=True).returncode == 0 else "not built in"
    program = name.split()[-1]
    if shutil.which(program) is None:
        return f"there is no {program}" + (": apt-get install parallel" if program == "parallel" else "")
    return ""


NAMES = ("jobdb work", "GNU parallel", "xargs")


def measure(folder: Path, jobs: int, rounds: int, slots: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the seconds per job of each command, and the reason for each that is missing; interleaved."""
    missing = {name: reason for name in NAMES if (reason := reason_unavailable(name))}
    ways: dict[str, Callable[[int], dict[str, float]]] = {
        "jobdb work": _JobdbWork(folder, slots).run,
        "GNU parallel": _tool(["parallel", "--will-cite", f"-j{slots}", "true"]),
        "xargs": _tool(["xargs", f"-P{slots}", "-n1", "true"]),
    }
    usable = {name: run for name, run in ways.items() if name not in missing}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in usable}
    alone: dict[str, list[dict[str, float]]] = {name: [] for name in usable}
    for _ in range(rounds):
        for name, run in usable.items():
            alone[name].append(run(1))
            runs[name].append(run(jobs))
    results = {
        name: {
            "jobs": jobs,
            "wall_ms_each": spread([one["wall_sec"] / jobs * 1000 for one in found]),
            "cpu_ms_each": spread([one["cpu_sec"] / jobs * 1000 for one in found]),
            "one_job_cpu_ms": spread([one["cpu_sec"] * 1000 for one in alone[name]]),
        }
        for name, found in runs.items()
    }
    return results, missing
