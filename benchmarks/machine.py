"""Describe the machine: processor, memory, kernel, disk, file system and the versions of the software involved.

Called by __main__.py once per run. Only reads, except for the short measurement of the disk's sync.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "jobdb", "apsw", "cryptography", "rfc8785", "typer", "huey", "persist-queue", "litequeue", "simplebroker",
    "procrastinate", "dbos", "SQLAlchemy", "rq", "redis", "psycopg", "paho-mqtt", "matplotlib",
)  # fmt: skip
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


def mount_of(folder: Path) -> dict[str, str]:
    """Return device, type and options of the folder's mount (proc(5), mountinfo)."""
    best = {"mount": "", "type": "unknown", "device": "", "options": ""}
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    except OSError:
        return best
    resolved = folder.resolve()
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, (kind, device, *rest) = left.split(), right.split()
        point = Path(fields[4].encode().decode("unicode_escape"))
        if resolved.is_relative_to(point) and len(str(point)) >= len(best["mount"]):
            best = {
                "mount": str(point),
                "type": kind,
                "device": device,
                "options": fields[5],
                "rest": " ".join(rest),
            }
    best.pop("rest", None)
    return best


def in_memory(folder: Path) -> bool:
    """Return whether the folder is on a file system without a disk."""
    return mount_of(folder)["type"] in _MEMORY


def sync_us(folder: Path, times: int = 200) -> dict[str, float]:
    """Return what appending 4 KiB with fdatasync costs one process, in microseconds."""
    path, taken = folder / "sync-probe", []
    with open(path, "wb", buffering=0) as file:
        for _ in range(times):
            before = time.perf_counter_ns()
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter_ns() - before) / 1000)
    path.unlink()
    taken.sort()
    return {"median": statistics.median(taken), "p99": taken[int(times * 0.99) - 1], "longest": taken[-1]}


def _first(path: str, key: str) -> str:
    try:
        for line in Path(path).read_text("utf-8").splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe(folder: Path) -> dict[str, Any]:
    """Return the machine and the versions, as JSON values."""
    try:
        import apsw

        apsw_sqlite = apsw.sqlite_lib_version()
    except ImportError:
        apsw_sqlite = "none"
    return {
        "processor": _first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "system": platform.platform(terse=True),
        "python": sys.version.split()[0],
        "sqlite_of_python": sqlite3.sqlite_version,
        "sqlite_of_apsw": apsw_sqlite,
        "file_system": {key: value for key, value in mount_of(folder).items() if key in ("type", "options")},
        "append_4k_and_fdatasync_us": sync_us(folder),
        "load_before": os.getloadavg()[0],
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }
