"""Test files that are removed, replaced, linked a second time or unlocked while a registry has them open.

What was acknowledged must be found afterwards, by name, by another process; otherwise it must have been refused.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from jobdb import DatabaseReplaced, Registry, StorageFailed, Unusable
from jobdb.doctor import diagnose
from jobdb.engines.sql.statements import JOBS
from jobdb.operations.backup import back_up
from jobdb.urls import parse_url
from tests.support.other_process import job_ids, register_in_other_process
from tests.support.registries import open_registry

TIMEOUT_SEC = 60.0
RECHECK_SEC = 0.003
"""A verb that begins believes the last look for two milliseconds."""
_spawn = multiprocessing.get_context("spawn")


def rm_folder(database: Path) -> None:
    shutil.rmtree(database.parent)


def mv_folder(database: Path) -> None:
    database.parent.rename(database.parent.with_name("moved"))


def replace_folder(database: Path) -> None:
    new = database.parent.with_name("new")
    open_registry(new / "jobs.db", create=True).close()
    shutil.rmtree(database.parent)
    new.rename(database.parent)


def rm_file(database: Path) -> None:
    database.unlink()


def mv_file(database: Path) -> None:
    database.rename(database.with_name("moved.db"))


def replace_file(database: Path) -> None:
    shutil.copy(database, database.with_name("copy.db"))
    database.with_name("copy.db").replace(database)


def rm_wal(database: Path) -> None:
    Path(f"{database}-wal").unlink()


def mv_wal(database: Path) -> None:
    Path(f"{database}-wal").rename(database.with_name("kept-wal"))


def rm_shm(database: Path) -> None:
    Path(f"{database}-shm").unlink()


def rm_gate(database: Path) -> None:
    Path(f"{database}-gate").unlink()


FILE_DAMAGE = [rm_folder, mv_folder, replace_folder, rm_file, mv_file, replace_file]
WAL_DAMAGE = [rm_wal, mv_wal, rm_shm]
VERBS: dict[str, Callable[[Registry], object]] = {
    "register": lambda registry: registry.register(agent="a", prompt="p"),
    "claim": lambda registry: registry.claim(worker="w"),
    "publish": lambda registry: registry.publish("one", "progress"),
    "get": lambda registry: registry.get("one"),
    "jobs": lambda registry: registry.jobs(),
    "query": lambda registry: registry.engine.store.query("SELECT * FROM v_jobs", limit=1, timeout_sec=5),
    "sync": lambda registry: registry.engine.store.sync(),
    "subscribe": lambda registry: next(iter(registry.subscribe(subscriber="s", timeout_sec=5))),
}


@pytest.mark.parametrize("damage", FILE_DAMAGE + WAL_DAMAGE)
def test_no_verb_answers_from_removed_or_replaced_files(database: Path, damage: Callable[[Path], None]) -> None:
    for name, verb in VERBS.items():
        if name == "sync" and damage is rm_shm:
            continue  # it needs what was written before, which is in the WAL
        with open_registry(database) as registry:
            registry.register(agent="a", prompt="p", job_id="one")
            registry.jobs()
            damage(database)
            time.sleep(RECHECK_SEC)
            with pytest.raises(DatabaseReplaced, match="this registry refuses further verbs"):
                verb(registry)
            for other in VERBS.values():
                with pytest.raises(DatabaseReplaced):
                    other(registry)
        shutil.rmtree(database.parent, ignore_errors=True)
        shutil.rmtree(database.parent.with_name("moved"), ignore_errors=True)
        open_registry(database, create=True).close()


def test_a_removed_gate_file_is_reported(database: Path) -> None:
    """The next process would queue at another gate, and miss a failed sync."""
    with open_registry(database) as registry:
        rm_gate(database)
        time.sleep(RECHECK_SEC)
        with pytest.raises(DatabaseReplaced, match=r"jobs\.db-gate is gone"):
            registry.register(agent="a", prompt="p")


@pytest.mark.parametrize("damage", [*FILE_DAMAGE[:2], *FILE_DAMAGE[3:]])
def test_replaced_files_are_reported_with_a_rollback_journal_too(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for name, verb in VERBS.items():
        database = tmp_path / name / "jobs.db"
        with open_registry(database, journal="delete", create=True) as registry:
            registry.register(agent="a", prompt="p", job_id="one")
            damage(database)
            time.sleep(RECHECK_SEC)
            with pytest.raises(DatabaseReplaced):
                verb(registry)
            assert not os.path.exists(f"{database}-journal")
        shutil.rmtree(tmp_path / "moved", ignore_errors=True)


def _use_truncated_shm(database: Path, size: int) -> None:
    for name, verb in VERBS.items():
        if name == "sync":
            continue  # does not read it
        registry = open_registry(database.with_name(f"{name}.db"), create=True)
        registry.register(agent="a", prompt="p", job_id="one")
        registry.jobs()
        os.truncate(f"{registry.engine.store.path}-shm", size)  # type: ignore[attr-defined]
        time.sleep(RECHECK_SEC)
        for _ in range(2):
            with pytest.raises(DatabaseReplaced, match=r"-shm was truncated"):
                verb(registry)
        registry.close()
        assert job_ids(database.with_name(f"{name}.db")) == {"one"}


@pytest.mark.parametrize("size", [0, 4096])
def test_a_truncated_shm_file_is_reported_and_kills_no_process(database: Path, size: int) -> None:
    """SQLite has the file mapped: reading the missing part raises SIGBUS."""
    process = _spawn.Process(target=_use_truncated_shm, args=(database, size))
    process.start()
    process.join(TIMEOUT_SEC)
    assert process.exitcode == 0


def test_an_emptied_database_is_reported_and_keeps_its_wal(database: Path) -> None:
    registry = open_registry(database)
    registry.register(agent="a", prompt="p", job_id="one")
    os.truncate(database, 0)
    time.sleep(RECHECK_SEC)
    with pytest.raises(DatabaseReplaced, match="was emptied"):
        registry.register(agent="a", prompt="p")
    registry.close()
    assert os.stat(f"{database}-wal").st_size > 0


def _hold(database: Path, ready: Event, done: Event) -> None:
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p", job_id="only-in-the-log")
        ready.set()
        done.wait(TIMEOUT_SEC)


def test_an_error_about_a_removed_wal_names_the_process_that_has_it_open(database: Path) -> None:
    ready, done = _spawn.Event(), _spawn.Event()
    process = _spawn.Process(target=_hold, args=(database, ready, done))
    process.start()
    assert ready.wait(TIMEOUT_SEC)
    rm_wal(database)
    message = rf"was removed or emptied while process {process.pid} had it open"
    with pytest.raises(StorageFailed, match=message):
        job_ids(database)
    with open_registry(database) as registry, pytest.raises(StorageFailed, match=message):
        back_up(registry, database.with_name("b.db"))
    (descriptor,) = [
        name for name in Path(f"/proc/{process.pid}/fd").iterdir() if os.readlink(name) == f"{database}-wal (deleted)"
    ][:1]
    shutil.copy(descriptor, database.with_name("copied"))
    process.kill()
    process.join(TIMEOUT_SEC)
    rm_shm(database)
    database.with_name("copied").replace(f"{database}-wal")
    assert job_ids(database) == {"only-in-the-log"}


@pytest.mark.parametrize("damage", [rm_folder, replace_folder, mv_file, rm_wal])
def test_a_commit_after_the_files_were_removed_is_not_acknowledged(
    database: Path, damage: Callable[[Path], None]
) -> None:
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p", job_id="one")
        with pytest.raises(DatabaseReplaced), registry.engine.store.write() as tx:
            tx.run(JOBS.put_setting, name="x", value="y")
            damage(database)


@pytest.mark.parametrize("damage", [rm_folder, replace_folder, mv_file])
def test_idle_waiters_are_told_of_replaced_files(database: Path, damage: Callable[[Path], None]) -> None:
    with open_registry(database) as registry, ThreadPoolExecutor(2) as pool:
        registry.register(agent="a", prompt="p", job_id="one")
        waiting = pool.submit(registry.wait, "one", timeout_sec=TIMEOUT_SEC)
        following = pool.submit(next, iter(registry.subscribe("one", subscriber="s", timeout_sec=TIMEOUT_SEC)))
        time.sleep(0.05)
        assert not waiting.done() and not following.done()
        damage(database)
        for errors in (waiting, following):
            with pytest.raises(DatabaseReplaced):
                errors.result(TIMEOUT_SEC)


def test_closing_leaves_the_wal_of_another_database_alone(database: Path) -> None:
    """SQLite removes the WAL by its name: here only the WAL has the other database's last job."""
    registry = open_registry(database)
    registry.register(agent="a", prompt="p", job_id="mine")
    registry.jobs()
    new = database.parent.with_name("new")
    open_registry(new / "jobs.db", create=True).close()
    register_in_other_process(new / "jobs.db", "theirs", "wal", True)
    database.parent.rename(database.parent.with_name("old"))
    new.rename(database.parent)
    log = Path(f"{database}-wal").read_bytes()
    registry.close()
    assert log and Path(f"{database}-wal").read_bytes() == log
    assert job_ids(database) == {"theirs"}
    assert job_ids(database.parent.with_name("old") / "jobs.db") == {"mine"}


def test_a_database_moved_away_and_back_is_whole(database: Path) -> None:
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p", job_id="one")
        mv_folder(database)
        time.sleep(RECHECK_SEC)
        with pytest.raises(DatabaseReplaced):
            registry.register(agent="a", prompt="p", job_id="refused")
    database.parent.with_name("moved").rename(database.parent)
    assert job_ids(database) == {"one"}, "an idle writer checks the files before it writes"


# -- second names


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_second_name_is_refused_at_opening_and_afterwards(journal: str, tmp_path: Path) -> None:
    database, other = tmp_path / "private" / "jobs.db", tmp_path / "private" / "other.db"
    with open_registry(database, journal=journal, create=True) as registry:  # type: ignore[arg-type]
        registry.register(agent="a", prompt="p", job_id="one")
        os.link(database, other)
        time.sleep(RECHECK_SEC)
        with pytest.raises(Unusable, match=r"hard link.*jobdb backup"):
            registry.register(agent="a", prompt="p", job_id="two")
        for name in (database, other):
            for create in (False, True):
                with pytest.raises(Unusable, match="hard link"):
                    open_registry(name, create=create, journal=journal)  # type: ignore[arg-type]
        if journal == "wal":
            fix_commands = [
                finding.fix_command for finding in diagnose(parse_url(database)).findings if finding.fix_command
            ]
            assert fix_commands and all(fix_command.startswith("find ") for fix_command in fix_commands), (
                "the advice must not be a command that is refused as well"
            )
        other.unlink()
        registry.register(agent="a", prompt="p", job_id="three")
    assert job_ids(database, journal) == {"one", "three"}


def test_all_threads_that_share_a_registry_are_told_of_replaced_files(database: Path) -> None:
    errors = []
    start = threading.Barrier(4)

    def work(registry: Registry) -> None:
        start.wait(TIMEOUT_SEC)
        try:
            while True:
                registry.register(agent="a", prompt="p")
        except DatabaseReplaced as error:
            errors.append(error)

    with open_registry(database) as registry:
        threads = [threading.Thread(target=work, args=(registry,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait(TIMEOUT_SEC)
        time.sleep(0.05)
        mv_folder(database)
        for thread in threads:
            thread.join(TIMEOUT_SEC)
    assert len(errors) == 3
