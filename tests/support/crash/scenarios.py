"""Scenarios with their sizes as arguments: short for every test run, long for torture.

Each returns a ``Report`` that says what was done and which promises were broken.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.support.crash.checker import check_history
from tests.support.crash.random_worker import WorkerPlan, work
from tests.support.lossyfs.mount import LossyMount
from tests.support.processes import WorkerPool
from tests.support.registries import Journal, open_registry

CUT_POINTS = (
    ("change", "*", 1500),
    ("write", "jobs.db-wal", 1000),
    ("sync", "jobs.db-wal", 150),
    ("write", "jobs.db", 300),  # a checkpoint copies pages
    ("sync", "jobs.db", 20),  # a checkpoint ends
    ("header", "jobs.db-wal", 12),  # the WAL starts over
)
DELETE_CUT_POINTS = (
    ("change", "*", 500),
    ("write", "jobs.db-journal", 120),
    ("sync", "jobs.db-journal", 40),
    ("write", "jobs.db", 120),
    ("sync", "jobs.db", 20),
    ("unlink", "jobs.db-journal", 20),  # the commit itself
)


@dataclass
class Report:
    """The actions and findings of a scenario."""

    title: str
    events: int = 0
    points_hit: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    answered: int = 0
    last: str = ""

    def add(self, violations: list[str], history: Any) -> None:
        self.violations += violations
        self.answered += sum("answer" in call for call in history.calls)
        self.last = history.summary()

    def __str__(self) -> str:
        lines = [
            f"{self.title}: {self.events} times, {self.answered} calls answered, {len(self.violations)} broken promises"
        ]
        lines += [f"  {count:5} × {points_hit}" for points_hit, count in self.points_hit.most_common()]
        lines += [f"  last: {self.last}", *(f"  BROKEN {sentence}" for sentence in self.violations[:20])]
        return "\n".join(lines)


def kill_workers(folder: Path, seed: int, *, kills: int, workers: int = 4, kills_per_database: int = 150) -> Report:
    """Kill random workers under load, each replaced at once; check after every ``kills_per_database`` kills."""
    random, report = Random(seed), Report("SIGKILL of workers under load")
    while report.events < kills:
        place = folder / f"kills{report.events}"
        place.mkdir(mode=0o700)
        database, ack_log = place / "jobs.db", place / "acks"
        open_registry(database, create=True).close()
        plans = iter(
            WorkerPlan(database, ack_log, seed * 100_000 + report.events * 10 + number, number)
            for number in range(10**6)
        )
        with WorkerPool() as pool:
            alive = [pool.start(work, next(plans)) for _ in range(workers)]
            for _ in range(min(kills_per_database, kills - report.events)):
                time.sleep(random.uniform(0.0, 0.12))
                victim = alive.pop(random.randrange(len(alive)))
                victim.kill()
                victim.join(20)
                report.events += 1
                alive.append(pool.start(work, next(plans)))
            time.sleep(0.2)
        report.add(*check_history(database, ack_log))
        report.violations += check_usable(database)
    return report


def cut_power(
    mount: LossyMount,
    folder: Path,
    seed: int,
    *,
    cuts: int,
    workers: int = 3,
    cuts_per_database: int = 12,
    durability: str = "full",
    journal: Journal = "wal",
    stop_at_first: bool = False,
) -> Report:
    """Cut the power under load, at the most critical requests; check everything after each cut.

    Args:
        mount: where the database lies.
        folder: on a file system that is not cut, for the acknowledgement logs.
        seed: of the workers and the cut points.
        cuts: how many.
        workers: how many processes write.
        cuts_per_database: the number of cuts before a new database is created.
        durability: of the registries.
        journal: of the database.
        stop_at_first: end when a promise was broken.
    """
    random = Random(seed)
    report = Report(f"power cuts, journal {journal}, durability {durability}")
    points = CUT_POINTS if journal == "wal" else DELETE_CUT_POINTS
    while report.events < cuts:
        name = f"cuts{report.events}"
        database, ack_log = mount.folder / name / "jobs.db", folder / f"{name}.acks"
        open_registry(database, journal=journal, durability=durability, create=True).close()
        for _ in range(min(cuts_per_database, cuts - report.events)):
            report.events += 1
            request, pattern, most = random.choice(points)
            with WorkerPool() as pool:
                mount.arm(request, pattern, random.randrange(most))
                for number in range(workers):
                    plan_seed = seed * 100_000 + report.events * 10 + number
                    plan = WorkerPlan(database, ack_log, plan_seed, number, journal=journal, durability=durability)
                    pool.start(work, plan)
                try:
                    at = mount.wait_cut(15)["at"]
                except TimeoutError:
                    at = mount.cut()["at"]
            mount.boot()
            report.points_hit[at] += 1
            violations, history = check_history(database, ack_log)
            report.violations += violations
            if violations:
                break
        report.add([], history)
        if not violations:
            report.violations += check_usable(database, journal)
        if report.violations and stop_at_first:
            break
    return report


def check_usable(database: Path, journal: Journal = "wal") -> list[str]:
    """Run a job from registration to acceptance on a database that went through the scenario; return violations."""
    with open_registry(database, journal=journal) as registry:
        job = registry.register(agent="after", prompt="the day after")
        claim = registry.claim(worker="after", job_id=job.job_id)
        assert claim is not None
        event = registry.complete(job.job_id, attempt=claim.attempt)
        verdict = registry.accept(event.payload, subscriber="after").verdict
        return [] if verdict == "accepted" else [f"afterwards an event was {verdict}"]
