"""Test creation, backup, restore, copy and import, interrupted at any point: no lock stays held, and the next call
succeeds."""

import fcntl
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.engines.sqlite import open_files
from jobdb.engines.sqlite.migrations import migrate
from jobdb.legacy import import_registry
from jobdb.legacy import registry as old
from jobdb.legacy.registry_connections import close_idle
from jobdb.mqtt.ticket import Ticket
from jobdb.mqtt.ticket_outbox import TicketOutbox
from jobdb.operations.backup import back_up
from jobdb.operations.copy import copy_registry
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url
from tests.support.interrupts import interrupt_each_point
from tests.support.old_schema import create_at_version
from tests.support.processes import LineProcess

_OTHER_PROGRAM = """
import fcntl, json, sqlite3, sys
for line in sys.stdin:
    databases, locks = json.loads(line)
    try:
        for path in locks:
            with open(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in databases:
            connection = sqlite3.connect(path, timeout=0, isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            connection.close()
        print("free", flush=True)
    except Exception as error:
        print(path, type(error).__name__, error, flush=True)
"""

MAX_POINTS = 30


class OtherProcess:
    """Another process, which acquires locks that must be free."""

    def __init__(self) -> None:
        self._process = LineProcess([sys.executable, "-c", _OTHER_PROGRAM])

    def assert_unlocked(
        self, where: str, *databases: Path, locks: tuple[Path, ...] = (), within_sec: float = 0
    ) -> None:
        gates = [Path(f"{path}-gate") for path in databases]
        wanted = [str(path) for path in (*locks, *gates) if path.exists()]
        found = [str(path) for path in databases if path.exists() and path.stat().st_size]
        deadline = time.monotonic() + within_sec
        while True:
            answer = self._process.ask(json.dumps([found, wanted]))
            if answer == "free" or time.monotonic() > deadline:
                break
        assert answer == "free", where

    def close(self) -> None:
        self._process.close()


@pytest.fixture
def other_process() -> Iterator[OtherProcess]:
    made = OtherProcess()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "private"
    made.mkdir(mode=0o700)
    return made


def scratch_files(folder: Path) -> list[str]:
    words = (".partial-", ".restoring-", ".copying-")
    return [name for name in os.listdir(folder) if any(word in name for word in words)]


def assert_not_marked_open(path: Path) -> None:
    with open_files.exclusive_open(path):
        pass


def test_migrate(folder: Path, other_process: OtherProcess) -> None:
    old_one, path = folder / "old.db", folder / "jobs.db"
    create_at_version(old_one, 3)
    shutil.copy(old_one, path)

    def check(where: str) -> None:
        other_process.assert_unlocked(where, path)
        assert_not_marked_open(path)
        migrate(path)
        with Registry.open(path) as registry:
            registry.register(agent="a", prompt="p")
        assert scratch_files(folder) == []
        for name in os.listdir(folder):
            if name.endswith(".bak"):
                (folder / name).unlink()
        shutil.copy(old_one, path)

    assert interrupt_each_point(lambda: migrate(path), check, max_points=MAX_POINTS) > 3


def test_back_up(folder: Path, other_process: OtherProcess) -> None:
    path, target = folder / "jobs.db", folder / "saved.db"
    with Registry.open(path, create=True, busy_timeout_sec=1) as registry:
        registry.register(agent="a", prompt="p")

        def check(where: str) -> None:
            other_process.assert_unlocked(where, path)
            target.unlink(missing_ok=True)
            assert back_up(registry, target).jobs >= 1
            target.unlink()
            assert scratch_files(folder) == []
            registry.register(agent="a", prompt="p")

        assert interrupt_each_point(lambda: back_up(registry, target), check, max_points=MAX_POINTS) > 3
    assert_not_marked_open(path)


def test_restore(folder: Path, other_process: OtherProcess) -> None:
    path, saved = folder / "jobs.db", folder / "saved.db"
    with Registry.open(path, create=True) as registry:
        registry.register(agent="a", prompt="p")
        back_up(registry, saved)

    def check(where: str) -> None:
        other_process.assert_unlocked(where, path, saved)
        assert_not_marked_open(path)
        with Registry.open(path, busy_timeout_sec=1) as registry:
            assert len(registry.jobs()) == 1
        restore_registry(saved, parse_url(str(path)), busy_sec=1)
        assert scratch_files(folder) == []
        for kept in folder.glob("jobs.db.replaced-*"):
            kept.unlink()

    assert (
        interrupt_each_point(
            lambda: restore_registry(saved, parse_url(str(path)), busy_sec=1), check, max_points=MAX_POINTS
        )
        > 3
    )


def test_copy(folder: Path, other_process: OtherProcess) -> None:
    path, other, empty = folder / "jobs.db", folder / "copy.db", folder / "empty.db"
    Registry.open(empty, create=True).close()

    def new_target() -> Registry:
        shutil.copy(empty, other)
        return Registry.open(other, busy_timeout_sec=1)

    with Registry.open(path, create=True, busy_timeout_sec=1) as source:
        source.register(agent="a", prompt="p")
        targets = [new_target()]

        def check(where: str) -> None:
            other_process.assert_unlocked(where, path, other)
            source.reap()
            assert len(source.jobs()) == 1
            if not targets[0].jobs():
                copy_registry(source, targets[0])
            targets.pop().close()
            other.unlink()
            targets.append(new_target())

        assert interrupt_each_point(lambda: copy_registry(source, targets[0]), check, max_points=MAX_POINTS) > 3
        targets.pop().close()


def _old_registry(folder: Path) -> Path:
    jobs = folder / "workspace" / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    record = {
        "schema_version": 1,
        "job_id": "abc12345",
        "agent": "a",
        "prompt": "p",
        "status": "pending",
        "broker": {"host": "localhost", "port": 1883},
        "topic_prefix": "python/mqtt/jobs/abc12345",
        "auth_token": secrets.token_urlsafe(32),
        "created_at": "2026-06-19T09:32:00Z",
        "updated_at": "2026-06-19T09:32:00Z",
        "last_seq": 0,
    }
    (jobs / "abc12345.json").write_text(json.dumps(record))
    (jobs / ".lock").touch()
    return jobs


def test_import(folder: Path, other_process: OtherProcess) -> None:
    jobs, path = _old_registry(folder), folder / "jobs.db"
    with Registry.open(path, create=True, busy_timeout_sec=1) as registry:

        def check(where: str) -> None:
            other_process.assert_unlocked(where, path, locks=(jobs / ".lock",))
            report = import_registry(registry, jobs, lock_timeout_sec=1)
            assert report.ok
            registry.get("abc12345")

        run = lambda: import_registry(registry, jobs, lock_timeout_sec=1)  # noqa: E731
        assert interrupt_each_point(run, check, max_points=MAX_POINTS) > 3


def test_wait_for_the_legacy_lock(folder: Path, other_process: OtherProcess) -> None:
    """Interrupted while another process holds it: the thread that waits in the kernel keeps no lock afterwards."""
    jobs = _old_registry(folder)
    with open(jobs / ".lock") as held:

        def run() -> None:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                with old.registry_lock(jobs, timeout=0.005):
                    pass
            except old_busy:
                pass

        def check(where: str) -> None:
            fcntl.flock(held, fcntl.LOCK_UN)
            with old.registry_lock(jobs, timeout=5):  # behind any thread that is still in the kernel's queue
                pass
            # A thread that waited in the kernel may acquire it briefly before it releases it.
            other_process.assert_unlocked(where, locks=(jobs / ".lock",), within_sec=5)

        from jobdb import Busy as old_busy

        assert interrupt_each_point(run, check, max_points=MAX_POINTS) > 3


def test_legacy_module(folder: Path, other_process: OtherProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, path = folder / "jobs", folder / "jobs.db"
    monkeypatch.setenv("JOBDB_URL", str(path))
    Registry.open(path, create=True).close()

    def run() -> None:
        record = old.register_job(jobs, agent="a", prompt="p")
        with old.registry_lock(jobs):
            old.next_seq(jobs, record["job_id"])
        old.pick_pending(jobs, agent="a")
        old.update_status(jobs, record["job_id"], "completed")

    def check(where: str) -> None:
        other_process.assert_unlocked(where, path, locks=(jobs / ".lock",))
        assert old.load_job(jobs, old.register_job(jobs, agent="b", prompt="p")["job_id"])["status"] == "pending"

    try:
        assert interrupt_each_point(run, check, max_points=MAX_POINTS) > 3
    finally:
        close_idle()


def test_a_ticket_outbox(folder: Path, other_process: OtherProcess) -> None:
    path = folder / "tickets.db"
    ticket = Ticket("abc12345", "t/events", "h", 1883, False, None, None, "s" * 43, 1, 1, 1)

    def publish() -> None:
        with TicketOutbox.open(ticket, path=path) as outbox:
            outbox.publish("progress")

    def check(where: str) -> None:
        other_process.assert_unlocked(where, path)
        publish()

    publish()
    assert interrupt_each_point(publish, check, max_points=MAX_POINTS) > 3
    with TicketOutbox.open(ticket, path=path) as outbox:
        waiting = outbox.count_pending()
        assert waiting == outbox.next_seq() - 1
    assert_not_marked_open(path)
