"""Waiting for commits by others: the kernel's notifications, what is done without them, and what a close leaves."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jobdb import InvalidInput, Registry
from jobdb.engines.sqlite import wal_listener
from jobdb.system.interrupt_safe_flag import Flag
from tests.support.processes import LineProcess, module_environment, python_module
from tests.support.requirements import on_linux
from tests.support.waiting import wait_until

WAIT_SEC = 60.0


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobdb-wal-listener"]


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
def test_a_wait_that_lasts_is_woken_by_the_kernel(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Registry.open(database) as registry, Registry.open(database) as other:
        waits = [Wait(registry), Wait(registry)]
        wait_until(listeners)
        reads: list[int] = []
        path: Any = registry.store.file
        real = path._read_path.data_version
        monkeypatch.setattr(path._read_path, "data_version", lambda: reads.append(1) or real())
        time.sleep(0.3)
        assert len(reads) < 6 and len(listeners()) == 1  # it does not poll
        other.register(agent="codex", prompt="sort")
        for wait in waits:
            wait.join()
            assert wait.version not in (None, wait.seen)
    assert listeners() == []


@on_linux("has inotify")
def test_another_process_is_heard_too(database: Path) -> None:
    with Registry.open(database) as registry:
        wait = Wait(registry)
        wait_until(listeners)
        command = python_module("jobdb.cli", "--db", f"sqlite:///{database}", "register", "--agent", "codex", "sort")
        program = LineProcess(command, env=module_environment())
        wait.join()
        assert program.close() == 0 and wait.version != wait.seen


def test_without_notifications_it_polls(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> int:
        raise OSError("no inotify instance is left")

    monkeypatch.setattr(wal_listener, "_watch", refuse)
    with Registry.open(database) as registry, Registry.open(database) as other:
        wait = Wait(registry)
        time.sleep(0.3)
        other.register(agent="codex", prompt="sort")
        wait.join()
        assert wait.version != wait.seen and listeners() == []


def test_a_flag_ends_the_wait(database: Path) -> None:
    with Registry.open(database) as registry:
        for pause in (0.0, 0.3):
            flag = Flag()
            wait = Wait(registry, flag)
            time.sleep(pause)
            flag.set()
            wait.join()
            assert wait.version == wait.seen


def test_closing_ends_waits_and_leaves_no_descriptor(database: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before = 0
    for attempt in range(3):
        registry = Registry.open(database)
        wait = Wait(registry)
        time.sleep(0.2)
        registry.close()
        wait.join()
        assert wait.error is not None and listeners() == []
        before = count() if attempt == 0 else before
    assert count() == before


@on_linux("has inotify")
def test_a_forked_child_does_not_silence_its_parent(database: Path) -> None:
    with Registry.open(database) as registry, Registry.open(database) as other:
        wait = Wait(registry)
        wait_until(listeners)
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        assert len(listeners()) == 1
        other.register(agent="codex", prompt="sort")
        wait.join()
        assert wait.version != wait.seen


def test_a_registry_that_nobody_closed_leaves_no_thread(database: Path) -> None:
    import gc

    def wait() -> Any:
        registry = Registry.open(database)
        registry.store.wait_for_change(registry.store.data_version(), 0.2)

    wait()
    gc.collect()
    wait_until(lambda: listeners() == [])
