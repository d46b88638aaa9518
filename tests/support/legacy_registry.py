"""Registries in the old format: their generator, and snapshots of folders and databases to compare."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jobdb import Registry
from tests.support.paths import EXAMPLES
from tests.support.scripts import load_script

generator = load_script(EXAMPLES / "make_legacy_registry.py")


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return mode, modification time and digest of every file below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def read_records(folder: Path) -> dict[str, Any]:
    """Return the readable records of a registry, by file name."""
    found = {}
    for path in folder.rglob("jobs/*.json"):
        try:
            record = json.loads(path.read_bytes())
        except ValueError:
            continue
        found[path.name] = record
    return found


def registry_contents(registry: Registry) -> dict[str, Any]:
    """Return everything public in a database by job, tokens and passwords included."""
    found = {}
    for job in registry.all_jobs():
        token = registry.tokens.show(job.job_id) if job.auth == "required" else None
        events = [event.payload for event in registry.events(job.job_id, limit=1000)]
        found[job.job_id] = (job.as_dict(), token, registry.engine.broker(job.job_id)[1], events)
    return found
