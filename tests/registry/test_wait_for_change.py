"""Waiting for commits by others: the kernel's notifications, what is done without them, and what a close leaves."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jobdb import InvalidInput, Registry
from jobdb.engines.sqlite import wal_watch
from jobdb.system.interrupt_safe_flag import Flag
from tests.support.processes import LineProcess, module_environment, python_module
from tests.support.requirements import on_linux
from tests.support.waiting import wait_until

WAIT_SEC = 60.0


class Wait:
    """A thread that waits for the next change."""

    def __init__(self, registry: Registry, wake: Flag | None = None) -> None:
        self.seen = registry.store.data_version()
        self.version: int | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(registry, wake), daemon=True)
        self._thread.start()

    def _run(self, registry: Registry, wake: Flag | None) -> None:
        try:
            self.version = registry.store.wait_for_change(self.seen, WAIT_SEC, wake=wake)
        except InvalidInput as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(WAIT_SEC / 2)
        assert not self._thread.is_alive()


@on_linux("has inotify")
def test_a_wait_that_lasts_looks_now_and_then(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Registry.open(database) as registry, Registry.open(database) as other:
        waits = [Wait(registry), Wait(registry)]
        reads: list[int] = []
        store: Any = registry.store
        wait_until(lambda: store._read_path is not None)
        real = store._read_path.data_version
        monkeypatch.setattr(store._read_path, "data_version", lambda: reads.append(1) or real())
        time.sleep(1.0)
        assert len(reads) < 30  # polling would look a hundred times
        other.register(agent="codex", prompt="sort")
        for wait in waits:
            wait.join()
            assert wait.version not in (None, wait.seen)


def test_another_process_is_heard_too(database: Path) -> None:
    with Registry.open(database) as registry:
        wait = Wait(registry)
        command = python_module("jobdb.cli", "--db", f"sqlite:///{database}", "register", "--agent", "codex", "sort")
        program = LineProcess(command, env=module_environment())
        wait.join()
        assert program.close() == 0 and wait.version != wait.seen


def test_without_notifications_it_polls(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: object, _wal: Path) -> None:
        raise OSError("no inotify instance is left")

    monkeypatch.setattr(wal_watch.WalWatch, "__init__", refuse)
    with Registry.open(database) as registry, Registry.open(database) as other:
        wait = Wait(registry)
        time.sleep(0.3)
        other.register(agent="codex", prompt="sort")
        wait.join()
        assert wait.version != wait.seen


def test_a_flag_ends_the_wait_and_is_not_set_by_it(database: Path) -> None:
    with Registry.open(database) as registry, Registry.open(database) as other:
        for pause in (0.0, 0.3):
            flag = Flag()
            wait = Wait(registry, flag)
            time.sleep(pause)
            flag.set()
            wait.join()
            assert wait.version == wait.seen
        flag = Flag()
        wait = Wait(registry, flag)
        other.register(agent="codex", prompt="sort")
        wait.join()
        assert not flag.is_set() and wait.version != wait.seen


def test_closing_ends_waits_and_leaves_no_descriptor(database: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    counts = []
    for _ in range(3):
        registry = Registry.open(database)
        wait = Wait(registry)
        time.sleep(0.2)
        registry.close()
        wait.join()
        assert wait.error is not None
        del registry, wait
        counts.append(count())
    assert counts[2] <= counts[0]
