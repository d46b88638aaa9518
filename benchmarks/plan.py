"""The full plan and the quick one: which adapters run which operation, with how many processes and jobs.

Called by __main__.py; read by harness.py. A cell's adapters are those that support the operation and are installed.
"""

from __future__ import annotations

from dataclasses import dataclass

from .adapters import ADAPTERS
from .adapters.base import BATCH_OPERATIONS, OPERATIONS

# What an operation consumes is prepared beforehand: the number of calls per measured second, over all workers.
_PREFILL_PER_SEC = {"accept": 16000, "accept_100": 40000, "complete": 3000}
_REUSE_TEMPLATE_FROM_JOBS = 10_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One operation under one load. ``seconds`` bounds each round; claim may have several."""

    operation: str
    workers: int
    size: int
    adapters: tuple[str, ...]
    seconds: float
    warmup_sec: float
    repetitions: int
    rounds: int = 1

    @property
    def prefill_calls(self) -> int:
        each = _PREFILL_PER_SEC.get(self.operation, 0) * (self.seconds + self.warmup_sec) / self.workers
        return max(int(each), 50) if each else 0

    @property
    def reuses_template(self) -> bool:
        """Return whether the prepared registry itself is used, because copying it would take longer than the run."""
        return self.size >= _REUSE_TEMPLATE_FROM_JOBS


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells in order, and the sizes of the other measurements."""

    name: str
    cells: tuple[Cell, ...]
    cold_starts: int
    wakeups: int
    idle_sec: float
    import_jobs: int
    import_repetitions: int

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(name for name in ADAPTERS if any(name in cell.adapters for cell in self.cells))

    @property
    def workers(self) -> set[int]:
        return {cell.workers for cell in self.cells}


def supporting(operation: str, names: tuple[str, ...], workers: int) -> tuple[str, ...]:
    """Return the adapters that support the operation and that many processes."""
    chosen = []
    for name in names:
        cls = ADAPTERS[name].load()
        if operation not in cls.unsupported and workers <= cls.max_workers:
            chosen.append(name)
    return tuple(chosen)


_LARGE_REGISTRY = ("jobdb-full", "flock-fsync", "sqlite-full")
_LARGE_REGISTRY_CLAIM = (*_LARGE_REGISTRY, "huey", "persist-queue", "litequeue-full", "simplebroker")


_QUICK = (
    "jobdb-full",
    "jobdb-normal",
    "flock-fsync",
    "sqlite-full",
    "huey",
    "persist-queue",
    "litequeue-full",
    "simplebroker",
    "raw-full",
    "raw-normal",
)


# Which adapters are compared where: all under the load that matters most, fewer where only a trend is needed.
_CORE = ("jobdb-full", "flock-fsync", "sqlite-full")
_MANY_PROCESSES = (*_CORE, "jobdb-normal", "postgresql")
_FLOOR = (*_CORE, "jobdb-normal", "raw-full", "raw-normal")
_BATCHED = ("jobdb-full", "sqlite-full", "raw-full")
_ONE_PROCESS = (*_FLOOR, "huey", "persist-queue", "litequeue-full", "simplebroker", "postgresql")


def full(available: tuple[str, ...], *, million: bool = False) -> Plan:
    """Return the plan of about ten minutes; about twenty with a registry of a million jobs."""

    def cell(operation: str, workers: int, size: int, names: tuple[str, ...], seconds: float, rounds: int = 1) -> Cell:
        adapters = supporting(operation, tuple(name for name in available if name in names), workers)
        warmup = 0.0 if operation == "complete" else min(0.25 * seconds, 0.2)
        return Cell(operation, workers, size, adapters, seconds, warmup, 3, rounds)

    cells = []
    for workers, names in ((1, _ONE_PROCESS), (2, _CORE), (8, available), (32, _MANY_PROCESSES)):
        cells.append(cell("publish", workers, 1000, names, 0.8 if workers < 8 else 1.6))
        cells.append(cell("claim", workers, 1000, names, 0.4, rounds=8))
    for operation in ("register", "accept", "complete", "list_page", "life"):
        cells.append(cell(operation, 1, 1000, _FLOOR, 0.35))
    for operation in ("register", "accept", "life"):
        cells.append(cell(operation, 8, 1000, _CORE, 0.35))
    cells += [
        cell(operation, 1, 1000, ("jobdb-full", "sqlite-full", "raw-full"), 0.5) for operation in BATCH_OPERATIONS
    ]
    for size in (10_000, 100_000):
        for operation in ("claim", "publish", "accept", "list_page"):
            names = _LARGE_REGISTRY_CLAIM if operation == "claim" and size < 100_000 else _LARGE_REGISTRY
            cells.append(cell(operation, 1, size, names, 0.4))
    cells.append(cell("claim", 8, 100_000, ("jobdb-full", "flock-fsync"), 1.0))
    if million:
        for operation in ("claim", "publish", "accept", "list_page"):
            cells.append(cell(operation, 1, 1_000_000, ("jobdb-full",), 0.4))
    return Plan(
        name="full",
        cells=tuple(planned for planned in cells if planned.adapters),
        cold_starts=20,
        wakeups=100,
        idle_sec=5.0,
        import_jobs=100_000,
        import_repetitions=3,
    )


def quick(available: tuple[str, ...]) -> Plan:
    """Return the plan of about one minute: all operations, fewer adapters and processes, small registries."""

    def cell(operation: str, workers: int, size: int, names: tuple[str, ...], seconds: float, rounds: int) -> Cell:
        adapters = supporting(operation, tuple(name for name in names if name in available), workers)
        warmup = 0.0 if operation == "complete" else 0.05
        return Cell(operation, workers, size, adapters, seconds, warmup, 2, rounds)

    chosen = tuple(name for name in available if name in _QUICK)
    cells = []
    for operation in OPERATIONS:
        cells.append(cell(operation, 1, 1000, chosen, 0.12, 4 if operation == "claim" else 1))
    cells.append(cell("publish", 8, 1000, chosen, 0.6, 1))
    cells.append(cell("claim", 8, 1000, chosen, 0.2, 4))
    cells.append(cell("life", 8, 1000, chosen, 0.2, 1))
    cells += [cell(operation, 1, 1000, ("jobdb-full", "raw-full"), 0.2, 1) for operation in BATCH_OPERATIONS]
    cells.append(cell("claim", 1, 10_000, _LARGE_REGISTRY, 0.2, 1))
    return Plan(
        name="quick",
        cells=tuple(planned for planned in cells if planned.adapters),
        cold_starts=4,
        wakeups=20,
        idle_sec=1.0,
        import_jobs=500,
        import_repetitions=1,
    )
