"""Test forked children: a database that the parent has open is refused with an error, any other can be used."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from jobdb import ForkedRegistry, Registry
from jobdb.engines.sql.statements import JOBS
from jobdb.engines.sqlite.migrations import migrate
from jobdb.engines.sqlite.query import run_query
from jobdb.operations.backup import back_up
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url
from tests.support.forks import (
    DONE,
    FAILED,
    REFUSED,
    TIMEOUT_SEC,
    fork_in_transaction,
    run_in_child,
    wait_for_child,
    write,
)


def test_a_database_open_in_the_parent_is_refused_by_every_entry_point_and_name(database: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(database)
    backup = tmp_path / "backup.db"
    with Registry.open(database) as registry:
        registry.jobs()
        ways: dict[str, Callable[[], object]] = {
            "open": lambda: Registry.open(database),
            "through a link": lambda: Registry.open(link),
            "migrate": lambda: migrate(database),
            "the parent's registry": registry.jobs,
        }
        for name, way in ways.items():
            assert run_in_child(way) == REFUSED, name
        # It runs in a separate process, which has inherited nothing.
        assert run_in_child(lambda: run_query(database, "SELECT 1 FROM v_jobs", limit=1, timeout_sec=20)) == DONE
        assert run_in_child(lambda: os._exit(run_in_child(lambda: Registry.open(database)))) == REFUSED, "a grandchild"
        back_up(registry, backup)
        assert run_in_child(lambda: restore_registry(backup, parse_url(str(database)))) == REFUSED
        registry.register(agent="a", prompt="p")
    assert run_in_child(lambda: Registry.open(database).close()) == DONE, "closed before the fork"


def test_the_message_says_what_to_do(database: Path) -> None:
    with Registry.open(database):
        read, written = os.pipe()

        def check() -> None:
            try:
                Registry.open(database)
            except ForkedRegistry as error:
                os.write(written, str(error).encode())

        assert run_in_child(check) == DONE
    text = os.read(read, 4096).decode()
    assert str(database) in text and "spawn" in text and "before the fork" in text
    os.close(read)
    os.close(written)


def test_nothing_is_lost_when_the_child_is_refused_and_the_parent_closes(database: Path) -> None:
    parent = Registry.open(database)
    parent.register(agent="a", prompt="by the parent")
    assert run_in_child(lambda: write(database)) == REFUSED
    parent.close()
    code = (
        "import sys; from jobdb import Registry\n"
        "with Registry.open(sys.argv[1]) as registry:\n"
        "    for _ in range(20): registry.register(agent='b', prompt='third')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(database)], check=True, timeout=60)
    with Registry.open(database) as registry:
        assert len(registry.jobs(limit=1000)) == 21
        assert registry.engine.store.integrity(full=True) == []  # type: ignore[attr-defined]


def test_closed_before_the_fork_each_process_opens_its_own_and_nothing_is_lost(database: Path) -> None:
    with Registry.open(database) as registry:
        registry.register(agent="a", prompt="before the fork")
        registry.jobs()
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own = Registry.open(database)
            own.jobs()
            os.read(read, 1)  # until the parent has opened and closed its own
            for _ in range(60):
                own.register(agent="a", prompt="child")
            own.close()
        finally:
            os._exit(DONE)
    with Registry.open(database) as registry:
        for _ in range(20):
            registry.register(agent="a", prompt="parent")
    os.write(written, b"x")
    code = (
        "import sys; from jobdb import Registry\n"
        "with Registry.open(sys.argv[1]) as registry:\n"
        "    for _ in range(40): registry.register(agent='b', prompt='third')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(database)], check=True, timeout=60)
    assert wait_for_child(child) == DONE
    os.close(read)
    os.close(written)
    with Registry.open(database) as registry:
        assert len(registry.jobs(limit=1000)) == 121
        assert registry.engine.store.integrity(full=True) == []  # type: ignore[attr-defined]


def test_another_database_may_be_opened_in_the_child(database: Path, tmp_path: Path) -> None:
    with Registry.open(database) as registry:
        registry.jobs()
        assert run_in_child(lambda: write(tmp_path / "own" / "jobs.db", 3)) == DONE
        registry.register(agent="a", prompt="p")
    with Registry.open(tmp_path / "own" / "jobs.db") as registry:
        assert len(registry.jobs()) == 3


def test_a_fork_during_another_threads_transaction_blocks_no_process(database: Path, tmp_path: Path) -> None:
    registry = Registry.open(database, busy_timeout_sec=5)
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with registry.engine.store.write() as tx:
            tx.run(JOBS.put_setting, name="a", value="b")
            inside.set()
            go_on.wait(TIMEOUT_SEC)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(TIMEOUT_SEC)
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            for path in (database, tmp_path / "other" / "jobs.db"):
                try:
                    Registry.open(path, create=True)
                except ForkedRegistry:
                    code = REFUSED
            os.read(read, 1)  # it keeps running, and holds no gate
        finally:
            os._exit(code)
    go_on.set()
    thread.join(TIMEOUT_SEC)
    registry.register(agent="a", prompt="p")
    os.write(written, b"x")
    assert wait_for_child(child) == REFUSED
    os.close(read)
    os.close(written)
    registry.close()


def test_a_fork_while_other_threads_work_hangs_no_child(database: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def open_and_close() -> None:
        while not stop.is_set():
            with Registry.open(tmp_path / "busy" / "jobs.db", create=True) as opened_again:
                opened_again.jobs()

    shared = Registry.open(database, busy_timeout_sec=20)

    def publish() -> None:
        job = shared.register(agent="a", prompt="p", timeout_sec=0).job_id
        while not stop.is_set():
            shared.publish(job, "progress")

    threads = [threading.Thread(target=open_and_close), threading.Thread(target=publish)]
    for thread in threads:
        thread.start()
    try:
        codes = [run_in_child(lambda n=n: write(tmp_path / f"own{n}" / "jobs.db")) for n in range(12)]  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_SEC)
        shared.close()
    assert set(codes) <= {DONE, REFUSED}
    assert DONE in codes, "a fork waits for short verbs"


def test_a_child_forked_during_a_verb_does_not_commit_for_its_parent(database: Path) -> None:
    with Registry.open(database, busy_timeout_sec=5) as registry:
        assert fork_in_transaction(registry) == REFUSED
        with registry.engine.store.read() as tx:
            assert tx.one(JOBS.get_setting, name="by") == ("parent",)
        registry.register(agent="a", prompt="p")
