"""Test other ways to fork, and other objects that a child inherits: nothing hangs, the parent's files are untouched."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from jobdb import ForkedRegistry, Registry
from jobdb.doctor import diagnose
from jobdb.legacy.folder.lock import registry_lock
from jobdb.mqtt.ticket import Ticket
from jobdb.mqtt.ticket_outbox import TicketOutbox
from jobdb.operations.backup import back_up
from jobdb.operations.copy import copy_registry
from jobdb.urls import parse_url
from tests.support.forks import DONE, FAILED, REFUSED, TIMEOUT_SEC, run_in_child, wait_for_child, write


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "private" / "jobs.db"
    write(path)
    return path


def test_backup_copy_and_doctor_in_a_child_leave_the_parents_files_alone(database: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "jobs.db"
    Registry.open(other, create=True).close()
    with Registry.open(database) as registry:
        registry.jobs()
        assert run_in_child(lambda: back_up(registry, tmp_path / "saved.db")) == REFUSED
        assert not (tmp_path / "saved.db").exists()

        def copy() -> None:
            with Registry.open(other) as target:
                copy_registry(registry, target)

        assert run_in_child(copy) == REFUSED

        assert run_in_child(lambda: diagnose(parse_url(str(database)))) == REFUSED
        registry.register(agent="a", prompt="p")
    with Registry.open(other) as registry:
        assert registry.jobs() == []


def test_a_ticket_outbox(tmp_path: Path) -> None:
    path = tmp_path / "private" / "tickets.db"
    ticket = Ticket("abc12345", "t/events", "h", 1883, False, None, None, "s" * 43, 1, 1, 1)
    with TicketOutbox.open(ticket, path=path) as outbox:
        outbox.publish("progress")
        assert run_in_child(lambda: outbox.publish("progress")) == REFUSED
        assert run_in_child(lambda: TicketOutbox.open(ticket, path=path)) == REFUSED
        assert outbox.publish("progress").seq == 2

    def publish() -> None:
        with TicketOutbox.open(ticket, path=path) as own:
            own.publish("progress")

    assert run_in_child(publish) == DONE


def _open_refused(path: Path) -> None:
    try:
        Registry.open(path)
    except ForkedRegistry:
        sys.exit(REFUSED)


def test_multiprocessing_by_fork_and_by_spawn(database: Path) -> None:
    with Registry.open(database) as registry:
        registry.jobs()
        for method, code in (("fork", REFUSED), ("spawn", DONE)):
            process = multiprocessing.get_context(method).Process(target=_open_refused, args=(database,))
            process.start()
            process.join(TIMEOUT_SEC)
            assert process.exitcode == code, method
        registry.register(agent="a", prompt="p")


def test_forkpty(database: Path) -> None:
    with Registry.open(database) as registry:
        registry.jobs()
        child, terminal = os.forkpty()
        if child == 0:
            code = FAILED
            try:
                Registry.open(database)
            except ForkedRegistry:
                code = REFUSED
            finally:
                os._exit(code)
        assert wait_for_child(child) == REFUSED
        os.close(terminal)
        registry.register(agent="a", prompt="p")


def test_a_program_started_with_preexec_fn_may_open_the_database(database: Path) -> None:
    code = (
        "import sys; from jobdb import Registry\n"
        "with Registry.open(sys.argv[1]) as registry: registry.register(agent='b', prompt='p')"
    )
    with Registry.open(database) as registry:
        registry.jobs()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subprocess.run([sys.executable, "-c", code, str(database)], check=True, timeout=60, preexec_fn=os.getpid)
        registry.register(agent="a", prompt="p")
        assert len(registry.jobs()) == 3


def test_a_fork_while_another_thread_opens_hangs_no_process(database: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    codes: list[int] = []

    def open_and_close() -> None:
        while not stop.is_set():
            with Registry.open(database) as registry:
                registry.jobs()

    def fork() -> None:
        for number in range(8):
            codes.append(run_in_child(lambda n=number: write(tmp_path / f"own{n}" / "jobs.db")))  # type: ignore[misc]

    threads = [threading.Thread(target=fork), threading.Thread(target=open_and_close)]
    threads[1].start()
    threads[0].start()
    threads[0].join(2 * TIMEOUT_SEC)
    stop.set()
    threads[1].join(TIMEOUT_SEC)
    assert not any(thread.is_alive() for thread in threads)
    assert len(codes) == 8 and set(codes) <= {DONE, REFUSED}


@pytest.mark.parametrize("way", ["os._exit", "sys.exit", "collected"])
def test_a_child_that_ends_leaves_the_parents_database_and_lock_alone(database: Path, tmp_path: Path, way: str) -> None:
    """The parent releases the legacy lock although a child still runs."""
    read, written = os.pipe()
    with Registry.open(database) as registry:
        job = registry.register(agent="a", prompt="p").job_id
        with registry_lock(tmp_path, timeout_sec=5, create=True):
            child = os.fork()
            if child == 0:
                _end(way, read, registry)
        with registry_lock(tmp_path, timeout_sec=2, create=True):
            pass
        os.write(written, b"x")
        assert wait_for_child(child) == DONE
        assert registry.publish(job, "progress").seq == 1
    os.close(read)
    os.close(written)
    write(database)


def _end(way: str, wait_for: int, registry: Registry) -> None:
    os.read(wait_for, 1)
    if way == "collected":
        import gc

        registry.__dict__.clear()
        gc.collect()
    if way == "sys.exit":
        try:
            sys.exit(DONE)
        except SystemExit:
            registry.close()
    os._exit(DONE)
