"""Test locks that another library in the process drops by closing the file, during a call or between two."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import Busy, DatabaseReplaced
from jobdb.filesystem import ofd_locks
from tests.support.lock_drops import close_with_copy, close_with_read, close_with_shm_copy, close_with_sqlite3
from tests.support.other_process import job_ids, register_in_other_process
from tests.support.processes import module_environment
from tests.support.registries import open_registry

TIMEOUT_SEC = 60.0
STRESS_SEC = 3.0
_spawn = multiprocessing.get_context("spawn")


def read_two_tables(tx: Any) -> object:
    """Read two tables completely."""
    return tx._connection.execute("SELECT sum(last_seq), (SELECT count(*) FROM events) FROM jobs").fetchone()


def _write_and_checkpoint(database: Path) -> None:
    with open_registry(database) as registry:
        for _ in range(3):
            registry.register(agent="other", prompt="p")
        registry.engine.store.checkpoint()  # type: ignore[attr-defined]


def write_in_other_process(database: Path) -> None:
    process = _spawn.Process(target=_write_and_checkpoint, args=(database,))
    process.start()
    process.join(TIMEOUT_SEC)
    assert process.exitcode == 0


@pytest.mark.parametrize("drop", [close_with_sqlite3, close_with_shm_copy])
@pytest.mark.parametrize("copied", [False, True])
def test_a_read_that_lost_its_lock_returns_nothing(database: Path, drop: Callable[[Path], None], copied: bool) -> None:
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p")
        if copied:
            registry.engine.store.checkpoint()  # type: ignore[attr-defined]
        with pytest.raises(Busy, match="the result was discarded"), registry.engine.store.read() as tx:
            read_two_tables(tx)
            drop(database)
            write_in_other_process(database)
        assert len(registry.jobs()) == 4
        with pytest.raises(KeyboardInterrupt), registry.engine.store.read() as tx:
            read_two_tables(tx)
            drop(database)
            write_in_other_process(database)
            raise KeyboardInterrupt
        assert len(registry.jobs()) == 7


def test_a_read_that_holds_its_lock_succeeds_despite_dropped_locks(database: Path) -> None:
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p")
        for _ in range(2):
            with registry.engine.store.read() as tx:
                before = read_two_tables(tx)
                write_in_other_process(database)
                assert read_two_tables(tx) == before
            registry.engine.store.checkpoint()  # type: ignore[attr-defined]


def test_only_one_checkpoint_runs_at_a_time(database: Path) -> None:
    with open_registry(database) as first, open_registry(database, busy_timeout_sec=0.1) as second:
        first.register(agent="a", prompt="p")
        copying = first.engine.store._checkpointer  # type: ignore[attr-defined]
        assert copying.lock()
        close_with_shm_copy(database)
        with pytest.raises(Busy):
            second.engine.store.checkpoint()  # type: ignore[attr-defined]
        second.register(agent="a", prompt="writing goes on")
        copying.unlock()
        total, copied = second.engine.store.checkpoint()  # type: ignore[attr-defined]
        assert total == copied > 0


def test_everything_works_without_ofd_locks(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ofd_locks, "AVAILABLE", False)
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p")
        assert registry.engine.store.checkpoint()[0] > 0  # type: ignore[attr-defined]
        assert len(registry.jobs()) == 1
    assert not os.path.exists(f"{database}-wal")


LOCK_DROPS = [close_with_sqlite3, close_with_copy, close_with_read]


@pytest.mark.parametrize("drop", LOCK_DROPS)
def test_nothing_is_lost_when_another_library_in_the_process_closes_the_file(
    database: Path, drop: Callable[[Path], None]
) -> None:
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p", job_id="mine-0")
        for number in range(1, 5):
            drop(database)
            register_in_other_process(database, f"theirs-{number}")
            assert os.path.exists(f"{database}-wal"), "the other process was not the last one"
            registry.register(agent="a", prompt="p", job_id=f"mine-{number}")
        everybody = {job.job_id for job in registry.jobs()}
    assert len(everybody) == 9
    assert job_ids(database) == everybody


@pytest.mark.parametrize("drop", LOCK_DROPS)
def test_two_registries_of_one_process_guard_each_other(database: Path, drop: Callable[[Path], None]) -> None:
    first, second = open_registry(database), open_registry(database)
    drop(database)
    first.close()
    register_in_other_process(database, "theirs")
    second.register(agent="a", prompt="p", job_id="mine")
    second.close()
    assert not os.path.exists(f"{database}-wal"), "the last one leaves one file"
    assert job_ids(database) == {"theirs", "mine"}


@pytest.mark.parametrize("drop", LOCK_DROPS)
def test_without_ofd_locks_each_answered_write_is_found(
    database: Path, drop: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ofd_locks, "AVAILABLE", False)
    answered = set()
    with open_registry(database) as registry:
        answered.add(registry.register(agent="a", prompt="p", job_id="mine-0").job_id)
        for number in range(1, 4):
            drop(database)
            register_in_other_process(database, f"theirs-{number}")
            answered.add(f"theirs-{number}")
            try:
                answered.add(registry.register(agent="a", prompt="p", job_id=f"mine-{number}").job_id)
            except DatabaseReplaced:
                break
    assert answered <= job_ids(database)


def test_a_child_does_not_keep_the_locks_of_its_parent(database: Path) -> None:
    """It would, through inherited descriptors: no checkpoint could complete while the child runs."""
    script = (
        "import os, sys, time\n"
        "from tests.support.registries import open_registry\nfrom pathlib import Path\n"
        "registry = open_registry(Path(sys.argv[1]))\nregistry.register(agent='a', prompt='p', job_id='parent')\n"
        "pid = os.fork()\nif pid == 0:\n    os.close(1)\n    time.sleep(60)\nprint(pid, flush=True)\nos._exit(0)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script, str(database)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        env=module_environment(),
    )
    try:
        with open_registry(database) as registry:
            assert registry.get("parent").prompt == "p"
        assert not os.path.exists(f"{database}-wal")
    finally:
        os.kill(int(parent.stdout), 9)


def _publish(database: Path, until: float, answered: dict[str, int], reopen: int) -> None:
    """Publish until a deadline; count the answers."""
    registry = open_registry(database, checkpoint_pages=20)
    job_id = registry.register(agent="a", prompt="p", timeout_sec=0, idle_timeout_sec=0).job_id
    number = 0
    while time.time() < until:
        registry.publish(job_id, "progress", detail="x" * 300)
        number += 1
        if number % 7 == 0:
            registry.engine.store.checkpoint()  # type: ignore[attr-defined]
        if reopen and number % reopen == 0:
            registry.close()
            registry = open_registry(database, checkpoint_pages=20)
    registry.close()
    answered[job_id] = number


def _publish_elsewhere(database: Path, until: float, answers: multiprocessing.Queue[dict[str, int]]) -> None:
    answered: dict[str, int] = {}
    _publish(database, until, answered, 10)
    answers.put(answered)


def test_nothing_is_lost_while_locks_are_dropped_continuously(database: Path) -> None:
    until = time.time() + STRESS_SEC
    answered: dict[str, int] = {}
    wrong: list[object] = []

    def read() -> None:
        with open_registry(database) as registry:
            while time.time() < until:
                try:
                    with registry.engine.store.read() as tx:
                        before = read_two_tables(tx)
                        time.sleep(0.001)
                        after = read_two_tables(tx)
                    wrong.extend([] if before == after else [before, after])
                except Busy:
                    pass  # a file that reports that it was not used

    def drop() -> None:
        while time.time() < until:
            for suffix in ("", "-shm"):
                os.close(os.open(f"{database}{suffix}", os.O_RDONLY))
            time.sleep(0.0001)

    answers = _spawn.Queue()
    others = [_spawn.Process(target=_publish_elsewhere, args=(database, until, answers)) for _ in range(2)]
    threads = [threading.Thread(target=_publish, args=(database, until, answered, 0))]
    threads += [threading.Thread(target=work) for work in (read, drop)]
    for started in [*others, *threads]:
        started.start()
    for thread in threads:
        thread.join(TIMEOUT_SEC)
    for _ in others:
        answered |= answers.get(timeout=TIMEOUT_SEC)
    for other in others:
        other.join(TIMEOUT_SEC)
    assert not wrong
    with open_registry(database) as registry:
        assert {job_id: registry.get(job_id).last_seq for job_id in answered} == answered
        assert registry.engine.store.integrity(full=True) == []
