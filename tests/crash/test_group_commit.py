"""Test group commit with real processes and files: one sync serves all waiters, and no process waits for a dead one."""

import errno
import fcntl
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobdb import Busy, ForkedRegistry, Registry, StorageFailed, SyncFailed
from jobdb.engines.sqlite.gate import gate_path
from jobdb.engines.sqlite.shared_page import SIZE, SharedPage, page_path
from tests.support.registries import open_registry

TIMEOUT_SEC = 60.0
_spawn = multiprocessing.get_context("spawn")


def page_of(registry: Registry) -> SharedPage:
    found: SharedPage = registry.engine.store._gate.page  # type: ignore[attr-defined]
    return found


class CountedSyncs:
    """A replacement of ``os.fdatasync`` that counts calls and lets each do something first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> None:
        self.begun = 0
        self._before = before
        self._lock = threading.Lock()
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, fd: int) -> None:
        with self._lock:
            self.begun += 1
            number = self.begun
        self._before(number)
        self._real(fd)


def test_one_sync_serves_many_writers(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers, each = 8, 15
    registries = [open_registry(database) for _ in range(writers)]
    syncs = CountedSyncs(monkeypatch, lambda _: time.sleep(0.005))

    def write(registry: Registry) -> None:
        for _ in range(each):
            registry.register(agent="a", prompt="p")

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, registries))
    assert 0 < syncs.begun < writers * each / 2
    assert page_of(registries[0]).synced == page_of(registries[0]).committed
    for registry in registries:
        registry.close()


def test_no_process_waits_for_one_that_was_stopped_during_its_sync(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_registry(database) as registry, open(f"{database}-wal", "rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        syncs = CountedSyncs(monkeypatch, lambda _: None)
        registry.register(agent="a", prompt="p")
        assert syncs.begun == 1
        registry.engine.store.sync()
        assert syncs.begun == 2, "a process that reads and then writes waits for no stopped process either"
        monkeypatch.setattr(SharedPage, "wait_for_sync", lambda *_: pytest.fail("it is waited for once"))
        registry.register(agent="a", prompt="p")
        registry.engine.store.sync()
        fcntl.flock(stopped, fcntl.LOCK_UN)
        registry.register(agent="a", prompt="p")
        assert page_of(registry).synced == page_of(registry).committed


def test_a_sync_that_began_before_a_commit_does_not_serve_it(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = open_registry(database), open_registry(database)
    syncing, go_on = threading.Event(), threading.Event()

    def hold_the_first(number: int) -> None:
        if number == 1:
            syncing.set()
            assert go_on.wait(TIMEOUT_SEC)

    syncs = CountedSyncs(monkeypatch, hold_the_first)
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(first.register, agent="a", prompt="early")
        assert syncing.wait(TIMEOUT_SEC)
        late = pool.submit(second.register, agent="a", prompt="late")
        while page_of(first).committed - page_of(first).synced < 2:
            time.sleep(0.001)
        assert not early.done() and not late.done() and syncs.begun == 1
        go_on.set()
        late.result(TIMEOUT_SEC)
        early.result(TIMEOUT_SEC)
    assert syncs.begun >= 2
    first.close()
    second.close()


def test_a_failed_sync_fails_every_waiter(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing, waiting, idle = (open_registry(database) for _ in range(3))
    idle.jobs()
    syncing, go_on = threading.Event(), threading.Event()

    def fail_the_first(number: int) -> None:
        if number == 1:
            syncing.set()
            assert go_on.wait(TIMEOUT_SEC)
            raise OSError(errno.EIO, "the disk failed")

    CountedSyncs(monkeypatch, fail_the_first)
    with ThreadPoolExecutor(2) as pool:
        refused = pool.submit(failing.register, agent="a", prompt="not confirmed")
        assert syncing.wait(TIMEOUT_SEC)
        registering = pool.submit(waiting.register, agent="a", prompt="told")
        go_on.set()
        with pytest.raises(SyncFailed):
            refused.result(TIMEOUT_SEC)
        registering.result(TIMEOUT_SEC)
    page = page_of(waiting)
    assert page.rewrites == 1 and not page.wal_suspect
    idle.register(agent="a", prompt="goes on with a fresh descriptor")
    with pytest.raises(SyncFailed):
        failing.register(agent="a", prompt="the handle is not trusted again")
    for registry in (failing, waiting, idle):
        registry.close()


def _hang_in_sync(database: Path, reached: Any) -> None:
    registry = open_registry(database)

    def hang(_fd: int) -> None:
        reached.set()
        time.sleep(TIMEOUT_SEC * 2)

    os.fdatasync = hang
    registry.register(agent="a", prompt="never answered")


def _hang_in_transaction(database: Path, reached: Any) -> None:
    registry = open_registry(database)
    with registry.engine.store.write():
        reached.set()
        time.sleep(TIMEOUT_SEC * 2)


@pytest.mark.parametrize("hang", [_hang_in_sync, _hang_in_transaction])
def test_a_killed_process_blocks_no_other(database: Path, hang: Callable[[Path, Any], None]) -> None:
    here = open_registry(database)
    reached_event = _spawn.Event()
    other = _spawn.Process(target=hang, args=(database, reached_event), daemon=True)
    other.start()
    assert reached_event.wait(TIMEOUT_SEC)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(here.register, agent="a", prompt="waits")
        time.sleep(0.05)
        assert not waiting.done()
        other.kill()
        assert waiting.result(TIMEOUT_SEC).prompt == "waits"
    other.join(TIMEOUT_SEC)
    here.close()


def test_a_wait_at_the_gate_is_bounded_and_names_the_holder(database: Path) -> None:
    reached_event = _spawn.Event()
    other = _spawn.Process(target=_hang_in_transaction, args=(database, reached_event), daemon=True)
    other.start()
    assert reached_event.wait(TIMEOUT_SEC)
    with Registry.open(f"sqlite:///{database}", busy_timeout_sec=0.3) as here:
        with pytest.raises(Busy) as refused:
            here.register(agent="a", prompt="waits in vain")
        assert refused.value.waited_sec >= 0.3
        assert str(other.pid) in str(refused.value)
        here.jobs()
    other.kill()
    other.join(TIMEOUT_SEC)


def _count_syncs_on_signal(database: Path, boot: str, ready: Any, go_on: Any, answers: Any) -> None:
    from jobdb.engines.sqlite import shared_page, store

    if boot:
        vars(shared_page)["boot_id"] = vars(store)["boot_id"] = lambda: boot
    registry = open_registry(database)
    registry.register(agent="a", prompt="before")
    ready.set()
    assert go_on.wait(TIMEOUT_SEC)
    syncs = []
    real = os.fdatasync

    def counted(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    os.fdatasync = counted
    registry.register(agent="a", prompt="after")
    answers.put((page_of(registry).shared, len(syncs)))
    registry.close()


def cut(gate: Path) -> None:
    os.truncate(gate, 0)


def overwrite(gate: Path) -> None:
    gate.write_bytes(b"\xff" * SIZE)


def zero(gate: Path) -> None:
    gate.write_bytes(bytes(SIZE))


@pytest.mark.parametrize("damage", [cut, overwrite, zero])
def test_damage_to_the_gate_file_harms_no_process(database: Path, damage: Callable[[Path], None]) -> None:
    ready, go_on, answers = _spawn.Event(), _spawn.Event(), _spawn.Queue()
    idle = _spawn.Process(target=_count_syncs_on_signal, args=(database, "", ready, go_on, answers), daemon=True)
    idle.start()
    with open_registry(database) as here:
        assert ready.wait(TIMEOUT_SEC)
        damage(gate_path(database))
        here.register(agent="a", prompt="here")
        go_on.set()
        assert answers.get(timeout=TIMEOUT_SEC) == (True, 1), "it was ended by a signal, or trusted the damaged file"
        idle.join(TIMEOUT_SEC)
        assert idle.exitcode == 0
        assert len(here.jobs()) == 3
        assert page_of(here).synced == page_of(here).committed


def test_two_kernels_on_one_folder_each_sync_their_own_commits(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with two virtual machines that share a folder: the syncs of one mean nothing to the other."""
    ready, go_on, answers = _spawn.Event(), _spawn.Event(), _spawn.Queue()
    with open_registry(database) as here:
        here.register(agent="a", prompt="here")
        pending = []

        def stop_before(_number: int) -> None:
            if not pending:
                pending.append(page_of(here).committed)
                other = _spawn.Process(
                    target=_count_syncs_on_signal, args=(database, "another boot", ready, go_on, answers), daemon=True
                )
                other.start()
                assert ready.wait(TIMEOUT_SEC)
                go_on.set()
                assert answers.get(timeout=TIMEOUT_SEC) == (True, 1)
                other.join(TIMEOUT_SEC)
                assert page_of(here).synced < pending[0], "this commit was not synced"

        syncs = CountedSyncs(monkeypatch, stop_before)
        here.register(agent="a", prompt="pending")
        assert syncs.begun == 1 and pending
        assert page_of(here).synced == page_of(here).committed == pending[0]
        assert len(here.jobs()) == 4


def test_without_shared_memory_each_process_syncs_its_own_commits(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobdb.engines.sqlite.shared_page.FOLDER", str(database.parent / "none"))
    registries = [open_registry(database) for _ in range(3)]
    assert not any(page_of(registry).shared for registry in registries)
    syncs = CountedSyncs(monkeypatch, lambda _: None)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda registry: [registry.register(agent="a", prompt="p") for _ in range(10)], registries))
    assert syncs.begun == 30
    assert len(registries[0].jobs(limit=100)) == 30
    for registry in registries:
        registry.close()


def test_the_shared_page_is_removed_with_its_last_user(database: Path) -> None:
    first, second = open_registry(database), open_registry(database)
    place = page_path(first.engine.store._gate._fd)  # type: ignore[attr-defined]
    assert os.stat(place).st_mode & 0o777 == 0o600
    first.close()
    assert os.path.exists(place)
    second.register(agent="a", prompt="p")
    second.close()
    assert not os.path.exists(place)


def test_a_planted_shared_page_is_not_used(database: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    fd = os.open(gate_path(database), os.O_RDWR)
    place = page_path(fd)
    os.close(fd)
    os.symlink(precious, place)
    try:
        with open_registry(database) as registry:
            registry.register(agent="a", prompt="p")
            assert not page_of(registry).shared
    finally:
        os.unlink(place)
    assert precious.read_bytes() == b"precious"


def test_a_failed_sync_reaches_processes_that_share_no_memory(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = open_registry(database)

    def fail(_number: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    with monkeypatch.context() as patched:
        CountedSyncs(patched, fail)
        with pytest.raises(SyncFailed):
            failing.register(agent="a", prompt="not confirmed")
    failing.close()
    with monkeypatch.context() as patched:
        patched.setattr("jobdb.engines.sqlite.shared_page.FOLDER", str(database.parent / "none"))
        with open_registry(database) as later:
            assert page_of(later).wal_suspect
            later.register(agent="a", prompt="told")
            assert page_of(later).rewrites == 1 and not page_of(later).wal_suspect
    with open_registry(database) as registry:
        assert not page_of(registry).wal_suspect


def test_without_a_boot_id_every_commit_syncs_under_the_lock(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobdb.engines.sqlite.store.boot_id", lambda: "")
    with open_registry(database) as registry:
        registry.register(agent="a", prompt="p")
        assert registry.engine.store.settings()["synchronous"] == 2  # type: ignore[attr-defined]


def test_without_futexes_waiters_poll(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobdb.engines.sqlite.futex._SYSTEM_CALL", {})
    registries = [open_registry(database) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda registry: [registry.register(agent="a", prompt="p") for _ in range(20)], registries))
    assert len(registries[0].jobs(limit=1000)) == 80
    for registry in registries:
        registry.close()


def test_a_store_that_fails_to_open_leaves_nothing_open(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "not this one")

    monkeypatch.setattr("jobdb.engines.sqlite.store.WalSync", refused)
    with pytest.raises(StorageFailed):
        open_registry(database)
    folder = os.path.realpath(database.parent)
    still_open = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert [path for path in still_open if path.startswith(folder)] == []


def test_a_forked_child_is_refused_whichever_lock_its_parent_held(database: Path) -> None:
    with open_registry(database) as registry:
        job = registry.register(agent="a", prompt="p")
        registry.publish(job.job_id, "progress")
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with registry.engine.vault._lock:
                held.set()
                assert go_on.wait(TIMEOUT_SEC)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(TIMEOUT_SEC)
        child = os.fork()
        if child == 0:
            try:
                registry.publish(job.job_id, "progress")
            except ForkedRegistry:
                os._exit(7)
            os._exit(1)
        go_on.set()
        thread.join(TIMEOUT_SEC)
        deadline = time.monotonic() + TIMEOUT_SEC
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, 9)
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(ended[1]) == 7
