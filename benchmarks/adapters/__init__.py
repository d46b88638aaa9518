"""The measured implementations by name. Imported by harness.py; an adapter's own module is imported when it is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from .base import Adapter, AdapterInfo


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """An adapter's module and class, and the durability at which it runs."""

    module: str
    cls: str
    durability: str

    def load(self) -> type[Adapter]:
        adapter: type[Adapter] = getattr(importlib.import_module(f"benchmarks.adapters.{self.module}"), self.cls)
        return adapter

    def info(self) -> AdapterInfo:
        return self.load().info(self.durability)


ADAPTERS: dict[str, AdapterSpec] = {
    "jobdb-full": AdapterSpec("jobdb", "Jobdb", "full"),
    "jobdb-normal": AdapterSpec("jobdb", "Jobdb", "normal"),
    "flock-fsync": AdapterSpec("flock", "Flock", "full"),
    "flock-nosync": AdapterSpec("flock", "Flock", "none"),
    "sqlite-full": AdapterSpec("plain_sqlite", "PlainSqlite", "full"),
    "sqlite-normal": AdapterSpec("plain_sqlite", "PlainSqlite", "normal"),
    "huey": AdapterSpec("huey", "Huey", "full"),
    "persist-queue": AdapterSpec("persist_queue", "PersistQueue", "full"),
    "litequeue": AdapterSpec("litequeue", "Litequeue", "normal"),
    "litequeue-full": AdapterSpec("litequeue", "Litequeue", "full"),
    "simplebroker": AdapterSpec("simplebroker", "Simplebroker", "full"),
    "simplebroker-normal": AdapterSpec("simplebroker", "Simplebroker", "normal"),
    "raw-full": AdapterSpec("raw_apsw", "RawApsw", "full"),
    "raw-normal": AdapterSpec("raw_apsw", "RawApsw", "normal"),
    "postgresql": AdapterSpec("postgresql", "Postgresql", "full"),
}
