"""Measure the import of an old registry against a bare loop that only reads and parses its files.

Called by __main__.py. Both read the same folder, interleaved; the import also checks, writes and compares.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from . import sample_data
from .latencies import spread


def write_old_registry(folder: Path, jobs: int) -> int:
    """Write an old registry with an events log of three signed lines per job; return the number of files."""
    records_folder = folder / ".mam" / "jobs"
    records_folder.mkdir(parents=True)
    (records_folder / ".lock").touch()
    for record in sample_data.records(jobs, seed=7):
        record["last_seq"] = 3
        lines = [
            sample_data.sign(sample_data.wire_event(record["job_id"], seq), record["auth_token"]) for seq in range(1, 4)
        ]
        (records_folder / f"{record['job_id']}.json").write_text(json.dumps(record, indent=2), "utf-8")
        (records_folder / f"{record['job_id']}.events.log").write_text("\n".join(lines) + "\n", "utf-8")
    return 2 * jobs


def time_bare_loop(folder: Path) -> float:
    """Return the seconds that reading and parsing every record and every line takes."""
    began = time.perf_counter()
    for path in (folder / ".mam" / "jobs").iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".log":
            for line in path.read_text("utf-8").splitlines():
                json.loads(line)
    return time.perf_counter() - began


def measure(folder: Path, jobs: int, repetitions: int) -> dict[str, Any]:
    """Return the jobs per second of the bare loop and of the import into a new database."""
    from jobdb import Registry
    from jobdb.legacy import import_registry

    from .adapters.jobdb import benchmark_vault

    old, new = folder / "old", folder / "new"
    files = write_old_registry(old, jobs)
    new.mkdir(mode=0o700)
    vault = benchmark_vault(new)
    loops, imports = [], []
    time_bare_loop(old)  # unmeasured: afterwards both find the files in the page cache
    for repetition in range(repetitions):
        loops.append(jobs / time_bare_loop(old))
        with Registry.open(f"sqlite:///{new / f'{repetition}.db'}", create=True, vault=vault) as registry:
            began = time.perf_counter()
            report = import_registry(registry, old)
            imports.append(jobs / (time.perf_counter() - began))
            assert report.ok, "the import found damage in a registry without any"
    return {
        "jobs": jobs,
        "files": files,
        "bare_jobs_per_sec": spread(loops),
        "import_jobs_per_sec": spread(imports),
    }
