"""The measured ways by name. Imported by harness.py; a way's own module is imported when it is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from .base import About, Way


@dataclass(frozen=True, slots=True)
class Spec:
    """Where a way's class is and at which durability it runs."""

    module: str
    cls: str
    durability: str

    def load(self) -> type[Way]:
        found: type[Way] = getattr(importlib.import_module(f"benchmarks.ways.{self.module}"), self.cls)
        return found

    def about(self) -> About:
        return self.load().about(self.durability)


WAYS: dict[str, Spec] = {
    "jobdb-full": Spec("jobdb", "Jobdb", "full"),
    "jobdb-normal": Spec("jobdb", "Jobdb", "normal"),
    "flock-fsync": Spec("flock", "Flock", "full"),
    "flock-nosync": Spec("flock", "Flock", "none"),
    "sqlite-full": Spec("plain_sqlite", "PlainSqlite", "full"),
    "sqlite-normal": Spec("plain_sqlite", "PlainSqlite", "normal"),
    "huey": Spec("huey", "Huey", "full"),
    "persist-queue": Spec("persist_queue", "PersistQueue", "full"),
    "litequeue": Spec("litequeue", "Litequeue", "normal"),
    "litequeue-full": Spec("litequeue", "Litequeue", "full"),
    "simplebroker": Spec("simplebroker", "Simplebroker", "full"),
    "simplebroker-normal": Spec("simplebroker", "Simplebroker", "normal"),
    "raw-full": Spec("raw_apsw", "RawApsw", "full"),
    "raw-normal": Spec("raw_apsw", "RawApsw", "normal"),
    "postgresql": Spec("postgresql", "Postgresql", "full"),
}
