"""The full plan and the quick one: which way runs what, with how many processes, on how large a registry.

Called by __main__.py; read by harness.py. A cell's ways are those that have the operation and are installed.
"""

from __future__ import annotations

from dataclasses import dataclass

from .ways import ADAPTERS
from .ways.base import BATCH_OPERATIONS, OPERATIONS

# What an operation uses up is laid in beforehand: so many calls for a second of measuring by all workers.
_PREFILL_PER_SEC = {"accept": 16000, "accept_100": 40000, "complete": 3000}
_KEPT_FROM = 10_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One operation under one load. ``seconds`` bounds each round; claim may have several."""

    operation: str
    workers: int
    size: int
    ways: tuple[str, ...]
    seconds: float
    warmup_sec: float
    repetitions: int
    rounds: int = 1

    @property
    def prefill_calls(self) -> int:
        each = _PREFILL_PER_SEC.get(self.operation, 0) * (self.seconds + self.warmup_sec) / self.workers
        return max(int(each), 50) if each else 0

    @property
    def kept(self) -> bool:
        """Whether the prepared registry itself is used, because copying it would take longer than the run."""
        return self.size >= _KEPT_FROM


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells in their order, and how long the other measurements may go on."""

    name: str
    cells: tuple[Cell, ...]
    cold_starts: int
    wakeups: int
    idle_sec: float
    import_jobs: int
    import_repetitions: int

    @property
    def ways(self) -> tuple[str, ...]:
        return tuple(name for name in ADAPTERS if any(name in cell.ways for cell in self.cells))

    @property
    def workers(self) -> set[int]:
        return {cell.workers for cell in self.cells}


def supporting(operation: str, names: tuple[str, ...], workers: int) -> tuple[str, ...]:
    """Those of the ways that have the operation and can be used by so many processes."""
    kept = []
    for name in names:
        cls = ADAPTERS[name].load()
        if operation not in cls.unsupported and workers <= cls.max_workers:
            kept.append(name)
    return tuple(kept)


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


# Who is compared where: all ways under the load that counts, fewer where only the trend is asked for.
_CORE = ("jobdb-full", "flock-fsync", "sqlite-full")
_MANY_PROCESSES = (*_CORE, "jobdb-normal", "postgresql")
_FLOOR = (*_CORE, "jobdb-normal", "raw-full", "raw-normal")
_BATCHED = ("jobdb-full", "sqlite-full", "raw-full")
_ONE_PROCESS = (*_FLOOR, "huey", "persist-queue", "litequeue-full", "simplebroker", "postgresql")


def full(available: tuple[str, ...], *, million: bool = False) -> Plan:
    """About ten minutes; with a registry of a million jobs about ten more."""

    def cell(operation: str, workers: int, size: int, names: tuple[str, ...], seconds: float, rounds: int = 1) -> Cell:
        ways = supporting(operation, tuple(name for name in available if name in names), workers)
        warmup = 0.0 if operation == "complete" else min(0.25 * seconds, 0.2)
        return Cell(operation, workers, size, ways, seconds, warmup, 3, rounds)

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
        cells=tuple(one for one in cells if one.ways),
        cold_starts=20,
        wakeups=100,
        idle_sec=5.0,
        import_jobs=100_000,
        import_repetitions=3,
    )


def quick(available: tuple[str, ...]) -> Plan:
    """About one minute: every operation, fewer ways and processes, two repetitions, small registries."""

    def cell(operation: str, workers: int, size: int, names: tuple[str, ...], seconds: float, rounds: int) -> Cell:
        ways = supporting(operation, tuple(name for name in names if name in available), workers)
        warmup = 0.0 if operation == "complete" else 0.05
        return Cell(operation, workers, size, ways, seconds, warmup, 2, rounds)

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
        cells=tuple(one for one in cells if one.ways),
        cold_starts=4,
        wakeups=20,
        idle_sec=1.0,
        import_jobs=500,
        import_repetitions=1,
    )
