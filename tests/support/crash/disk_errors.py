"""Scenarios on failing and full disks: each call succeeds or raises a typed error, and nothing acknowledged is lost.

``fail_at_points`` repeats the same calls, with the error at another request each time.

Two cases are left out. Reads of ``-shm``: SQLite maps that file, and a mapped page that the disk cannot give back is a
signal to the process, whoever uses SQLite. And a power cut after a failed sync of the database file itself: Linux then
counts the pages as clean, and SQLite, which has noted some of them as copied from the WAL, does not write them again:
no user of SQLite survives both. A failed sync of the WAL is another matter, and is held to the full promise.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from random import Random

from tests.support.crash.checker import check_history
from tests.support.crash.random_worker import WorkerPlan, work
from tests.support.crash.scenarios import Report, check_usable
from tests.support.disks import resize_disk, small_disk
from tests.support.lossyfs.mount import LossyMount
from tests.support.processes import WorkerPool
from tests.support.registries import Journal, open_registry

FAULTS = (
    ("write", "jobs.db*", errno.EIO),
    ("write", "jobs.db*", errno.ENOSPC),
    ("sync", "jobs.db-wal", errno.EIO),
    ("sync", "jobs.db", errno.EIO),
    ("sync", "*-wal", errno.EIO),
    ("read", "jobs.db", errno.EIO),
    ("read", "jobs.db-[!s]*", errno.EIO),
    ("open", "jobs.db*", errno.EACCES),
    ("create", "jobs.db*", errno.EACCES),
    ("create", "jobs.db*", errno.ENOSPC),
    ("truncate", "jobs.db*", errno.EIO),
    ("lookup", "jobs.db*", errno.EIO),
)


def fail_at_points(
    mount: LossyMount, folder: Path, seed: int, *, points: int, calls: int = 40, journal: Journal = "wal"
) -> Report:
    """Inject errors at random requests of one worker's calls, once or for good; then heal, cut the power and check."""
    random, report = Random(seed), Report(f"errors at single requests, journal {journal}")
    for point in range(points):
        report.events += 1
        request, pattern, error = random.choice(FAULTS)
        count, skip = random.choice((1, 1, 2, -1)), int(random.paretovariate(0.6)) - 1
        place = mount.folder / f"{journal}{point}"
        database, ack_log = place / "jobs.db", folder / f"{journal}{point}.acks"
        open_registry(database, journal=journal, create=True).close()
        mount.fail(request, pattern, error, skip=skip % 2000, count=count)
        work(WorkerPlan(database, ack_log, seed * 100_000 + point, 0, journal=journal, calls=calls, checkpoint_pages=4))
        mount.clear()
        report.points_hit[f"{request} {pattern} {errno.errorcode[error]}"] += 1
        report.add(*check_history(database, ack_log, without_power_loss=True))
        report.violations += check_usable(database, journal)
        if not _hits_database_sync(request, pattern):
            mount.cut()
            mount.boot()
            report.add(*check_history(database, ack_log))
    return report


def _hits_database_sync(request: str, pattern: str) -> bool:
    return (request, pattern) == ("sync", "jobs.db")


def fail_under_load(
    mount: LossyMount, folder: Path, seed: int, *, rounds: int, workers: int = 3, journal: Journal = "wal"
) -> Report:
    """Inject errors while several processes write and reopen; let them continue, then cut the power."""
    random, report = Random(seed), Report(f"errors under load, journal {journal}")
    for number in range(rounds):
        report.events += 1
        database, ack_log = mount.folder / f"load{number}" / "jobs.db", folder / f"load{number}.acks"
        open_registry(database, journal=journal, create=True).close()
        with WorkerPool() as pool:
            for worker in range(workers):
                pool.start(work, WorkerPlan(database, ack_log, seed * 100_000 + number * 10 + worker, worker, journal))
            time.sleep(0.4)
            faults = random.choices(FAULTS, k=3)
            for request, pattern, error in faults:
                report.points_hit[f"{request} {pattern} {errno.errorcode[error]}"] += 1
                mount.fail(request, pattern, error, skip=random.randrange(50), count=random.choice((1, 2, 5)))
                time.sleep(random.uniform(0.05, 0.2))
            mount.clear()
            pool.start(work, WorkerPlan(database, ack_log, seed * 100_000 + number * 10 + workers, workers, journal))
            time.sleep(0.3)
            cut = not any(_hits_database_sync(request, pattern) for request, pattern, _ in faults)
            if cut:
                mount.cut()
        if cut:
            mount.boot()
        report.add(*check_history(database, ack_log))
        report.violations += check_usable(database, journal)
    return report


def fill_disk(folder: Path, seed: int, *, sizes: range, calls: int = 300) -> Report:
    """Fill disks of every size in KiB: first nothing fits, at last everything. Then free space and check."""
    report = Report("full disks")
    for size in sizes:
        report.events += 1
        ack_log = folder / f"full{size}.acks"
        with small_disk(folder / "small", size) as disk:
            database = disk / "jobs.db"
            plan = WorkerPlan(database, ack_log, seed * 100_000 + size, 0, calls=calls, checkpoint_pages=4)
            made = _made(database)
            if made:
                work(plan)
            resize_disk(disk, "64m")
            open_registry(database, create=True).close()
            report.points_hit["full while opening" if not made else "full in use, or never"] += 1
            report.add(*check_history(database, ack_log, without_power_loss=True))
            report.violations += check_usable(database)
    return report


def _made(database: Path) -> bool:
    from jobdb.errors import StorageFailed

    try:
        open_registry(database, create=True).close()
    except StorageFailed:
        return False
    return os.path.getsize(database) > 0
