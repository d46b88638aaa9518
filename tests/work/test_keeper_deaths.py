"""Test the deaths and stops of keepers, their server and their worker: no agent outlives them, no attempts overlap."""

from __future__ import annotations

import fcntl
import marshal
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from jobdb.system.boot_clock import boottime
from jobdb.work.keeper import attempt as attempt_module
from jobdb.work.keeper.cgroup import find_parent_group
from jobdb.work.keeper.client import Keeper, KeeperServer
from jobdb.work.keeper.launch import Launch, encode_launch
from jobdb.work.keeper.messages import Blocked, Ended, Lost, Started
from jobdb.work.keeper.signals import Signals
from tests.support.hostile_programs import PROGRAMS, READY, find_hostile, hostile_program
from tests.support.keeper_worker import WorkerProcess
from tests.support.keepers import Attempts, Conversation, begin, run
from tests.support.process_marks import marked_processes, wait_until_none
from tests.support.requirements import require
from tests.support.waiting import wait_until

LONELY = 'test "$(grep -lsza "^JOBDB_PROCESS_MARK=$0" /proc/[0-9]*/environ | wc -l)" = 0 && echo alone'
"""Says "alone" if no process has the mark that is the script's argument."""


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freeze a process, so that it can do nothing but die."""
    parent = find_parent_group()
    require(parent is not None, "no cgroup v2 is writable for this process")
    assert parent is not None
    group = Path(os.fsdecode(parent), f"test-{uuid4().hex}")
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "cgroup.freeze").write_text("1")
        yield
    finally:
        (group / "cgroup.freeze").write_text("0")
        wait_until(lambda: "populated 0" in (group / "cgroup.events").read_text())
        group.rmdir()


def lonely(attempts: Attempts, attempt: int = 2, **changes: object) -> Launch:
    """Return a launch that says "alone" if nothing of attempt 1 is alive when it begins."""
    return attempts.launch("sh", "-c", LONELY, f"{attempts.mark}1", attempt=attempt, **changes)


@pytest.fixture
def word() -> str:
    return uuid4().hex


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_killed_worker_leaves_nothing(
    worker_process: WorkerProcess, attempts: Attempts, name: str, word: str
) -> None:
    pids = worker_process.start(*hostile_program(name, word), line=READY.decode(), after="touch after")
    kill(worker_process.pid)
    wait_until_none(lambda: find_hostile(word) | marked_processes(attempts.mark))
    wait_until(lambda: not is_alive(pids["keeper"]) and not is_alive(pids["server"]))
    assert not attempts.lock.exists() and not (attempts.folder / "after").exists()


def test_a_forked_child_of_the_worker_does_not_keep_the_agent(
    worker_process: WorkerProcess, attempts: Attempts
) -> None:
    worker_process.start("sleep", 600)
    child = worker_process.fork()
    kill(worker_process.pid)
    wait_until_none(lambda: marked_processes(attempts.mark))
    assert is_alive(child)
    kill(child)


def test_the_deadline_of_a_stopped_worker_counts(worker_process: WorkerProcess, attempts: Attempts) -> None:
    deadline = boottime() + 1
    worker_process.start("sleep", 600, deadline=deadline)
    os.kill(worker_process.pid, signal.SIGSTOP)
    wait_until_none(lambda: marked_processes(attempts.mark))
    assert boottime() >= deadline and state(worker_process.pid) == "T"
    wait_until(lambda: not attempts.lock.exists())
    os.kill(worker_process.pid, signal.SIGCONT)
    assert worker_process.wait() == {"cause": "deadline", "exit_code": None}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_killed_keeper_leaves_nothing_to_the_next_attempt(
    keeper_server: KeeperServer, attempts: Attempts, name: str, word: str
) -> None:
    conversation = begin(keeper_server, attempts.launch(*hostile_program(name, word)))
    conversation.wait_for_line(READY)
    assert conversation.keeper.pid is not None
    kill(conversation.keeper.pid)
    # In brackets, so that the pattern does not match itself.
    script = f"grep -lsza '[{word[0]}]{word[1:]}' /proc/[0-9]*/cmdline; {LONELY}"
    ended = run(keeper_server, attempts.launch("sh", "-c", script, f"{attempts.mark}1", attempt=2))
    assert ended.tail == b"alone\n"
    conversation.receive_until(lambda: conversation.keeper.has_ended)
    assert conversation.messages[-1] == Lost(started=True)
    conversation.keeper.close()


def test_a_killed_server_leaves_its_attempts_alone(worker_process: WorkerProcess, attempts: Attempts) -> None:
    os.mkfifo(attempts.folder / "go")
    first = worker_process.start("sh", "-c", "read line < go; exit 3")
    kill(first["server"])
    wait_until(lambda: not is_alive(first["server"]))
    second = worker_process.start("sh", "-c", "exit 4", lock=str(attempts.folder / "other.lock"))
    assert second["server"] != first["server"]
    assert worker_process.kill_orphans() == 0
    assert is_alive(first["keeper"])
    (attempts.folder / "go").write_text("go\n")
    assert worker_process.wait(0) == {"cause": None, "exit_code": 3}
    assert worker_process.wait(1) == {"cause": None, "exit_code": 4}


def test_a_server_that_dies_with_its_worker_leaves_nothing(worker_process: WorkerProcess, attempts: Attempts) -> None:
    pids = worker_process.start("sh", "-c", "setsid sleep 600 & sleep 600")
    kill(pids["server"], worker_process.pid)
    wait_until_none(lambda: marked_processes(attempts.mark))
    wait_until(lambda: not is_alive(pids["keeper"]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_orphans_of_keeper_and_server_are_the_workers(
    worker_process: WorkerProcess, attempts: Attempts, name: str, word: str
) -> None:
    pids = worker_process.start(*hostile_program(name, word), line=READY.decode())
    kill(pids["server"], pids["keeper"])
    wait_until(lambda: not is_alive(pids["server"]) and not is_alive(pids["keeper"]))
    assert worker_process.wait() == "Lost(started=True)"
    child = worker_process.fork()
    wait_until(lambda: worker_process.kill_orphans() == 0)
    wait_until_none(lambda: find_hostile(word) | marked_processes(attempts.mark))
    assert is_alive(child)
    kill(child)


def test_the_next_attempt_kills_what_nobody_was_left_to_kill(
    worker_process: WorkerProcess, keeper_server: KeeperServer, attempts: Attempts
) -> None:
    script = "setsid sleep 601 & for i in 1 2 3; do (setsid sh -c 'sleep 602; true' &); done; sleep 603"
    pids = worker_process.start("sh", "-c", script)
    wait_until(lambda: len(marked_processes(attempts.mark)) >= 8)
    kill(pids["server"], pids["keeper"], worker_process.pid)
    wait_until(lambda: not is_alive(pids["agent"]))  # it dies with its keeper, its children do not
    assert len(marked_processes(attempts.mark)) >= 4
    conversation = begin(keeper_server, lonely(attempts))
    assert conversation.wait_for_end().tail == b"alone\n"
    assert conversation.of_kind(Blocked) != []
    conversation.keeper.close()


def test_a_sweep_spares_other_jobs_and_registries(keeper_server: KeeperServer, attempts: Attempts) -> None:
    registry, job, _ = attempts.mark.split(":")
    others = [f"{registry}:{job}0:1", f"{registry}0:{job}:1", f"{registry}:x{job}:1", f"{registry}:x:{job}:1"]
    conversations = [
        begin(keeper_server, attempts.launch("sleep", 600, mark=mark, lock=f"{attempts.lock}{number}"))
        for number, mark in enumerate(others)
    ]
    for conversation in conversations:
        conversation.wait_for(Started)
    assert run(keeper_server, lonely(attempts)).tail == b"alone\n"
    for conversation, mark in zip(conversations, others, strict=True):
        assert len(marked_processes(mark)) == 1, mark
        conversation.keeper.kill()
        assert conversation.wait_for_end().cause == "killed"
        conversation.keeper.close()


def test_the_next_attempt_takes_over(
    worker_process: WorkerProcess, keeper_server: KeeperServer, attempts: Attempts
) -> None:
    pids = worker_process.start("sh", "-c", "trap '' TERM; sleep 600", after="touch after")
    conversation = begin(keeper_server, lonely(attempts))
    assert conversation.wait_for_end().tail == b"alone\n"
    assert conversation.of_kind(Blocked) == [Blocked(pids["keeper"])]
    assert worker_process.wait() == {"cause": "killed", "exit_code": None}
    assert not (attempts.folder / "after").exists()
    conversation.keeper.close()


def test_a_stopped_keeper_is_continued(worker_process: WorkerProcess, attempts: Attempts) -> None:
    pids = worker_process.start("sleep", 600, deadline_sec=1)
    os.kill(pids["keeper"], signal.SIGSTOP)
    assert worker_process.wait() == {"cause": "deadline", "exit_code": None}


def test_a_stopped_keeper_without_a_server_goes_on_when_its_lease_is_renewed(
    keeper_server: KeeperServer, attempts: Attempts
) -> None:
    conversation = begin(keeper_server, attempts.launch("sleep", "600"))
    conversation.wait_for(Started)
    keeper, server = conversation.keeper.pid, keeper_server.pid
    assert keeper is not None and server is not None
    kill(server)
    wait_until(lambda: not is_alive(server))
    os.kill(keeper, signal.SIGSTOP)
    wait_until(lambda: state(keeper) == "T")
    conversation.keeper.extend(boottime() + 600)
    wait_until(lambda: state(keeper) != "T")
    conversation.keeper.kill()
    assert conversation.wait_for_end().cause == "killed"
    conversation.keeper.close()


def test_a_stopped_server_and_its_keepers_end_with_the_worker(
    worker_process: WorkerProcess, attempts: Attempts
) -> None:
    pids = worker_process.start("sh", "-c", "setsid sleep 600 & sleep 600")
    for pid in (pids["server"], pids["keeper"]):
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: state(pid) == "T")
    kill(worker_process.pid)
    wait_until(lambda: not is_alive(pids["server"]) and not is_alive(pids["keeper"]))
    assert marked_processes(attempts.mark) == {}


def test_the_next_attempt_takes_over_from_a_stopped_keeper(
    worker_process: WorkerProcess, keeper_server: KeeperServer, attempts: Attempts
) -> None:
    pids = worker_process.start("sh", "-c", "setsid sleep 600 & sleep 600")
    for pid in (worker_process.pid, pids["server"], pids["keeper"]):
        os.kill(pid, signal.SIGSTOP)
    conversation = begin(keeper_server, lonely(attempts))
    assert conversation.wait_for_end().tail == b"alone\n"
    conversation.keeper.close()


def test_the_next_attempt_kills_a_keeper_that_does_not_stop(
    worker_process: WorkerProcess, keeper_server: KeeperServer, attempts: Attempts
) -> None:
    pids = worker_process.start("sleep", 600)
    with frozen(pids["keeper"]):
        conversation = begin(keeper_server, lonely(attempts))
        assert conversation.wait_for_end().tail == b"alone\n"
        conversation.keeper.close()
    assert worker_process.wait() == "Lost(started=True)"


def test_sigterm_ends_a_keeper_at_once(keeper_server: KeeperServer, attempts: Attempts) -> None:
    launch = attempts.launch("sh", "-c", "trap '' TERM; sleep 600", after="touch after")
    conversation = begin(keeper_server, launch)
    conversation.wait_for(Started)
    assert conversation.keeper.pid is not None
    os.kill(conversation.keeper.pid, signal.SIGTERM)
    assert conversation.wait_for_end().cause == "killed"
    assert not (attempts.folder / "after").exists()
    conversation.keeper.close()


def test_a_stopped_server_is_continued(keeper_server: KeeperServer, attempts: Attempts) -> None:
    run(keeper_server, attempts.launch("true"))
    assert keeper_server.pid is not None
    os.kill(keeper_server.pid, signal.SIGSTOP)
    wait_until(lambda: state(keeper_server.pid or 0) == "T")
    assert run(keeper_server, attempts.launch("true")).exit_code == 0


def test_a_wait_for_the_lock_can_be_ended(keeper_server: KeeperServer, attempts: Attempts) -> None:
    attempts.lock.parent.mkdir()
    for end, cause in ((Keeper.kill, "killed"), (lambda keeper: keeper.terminate(60), "terminated")):
        with attempts.lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            conversation = begin(keeper_server, attempts.launch("echo", "run", after="echo after"))
            wait_until(lambda waited=conversation: waited.keeper.pid)
            end(conversation.keeper)
            ended = conversation.wait_for_end()
            assert (ended.cause, ended.exit_code, ended.tail) == (cause, None, b"")
            conversation.keeper.close()


def test_an_attempt_begins_when_the_lock_is_free(keeper_server: KeeperServer, attempts: Attempts) -> None:
    attempts.lock.parent.mkdir()
    with attempts.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        conversation = begin(keeper_server, attempts.launch("echo", "run"))
        wait_until(lambda: conversation.keeper.pid)
        attempts.lock.unlink()  # as its holder does
    assert conversation.wait_for_end().tail == b"run\n"
    conversation.keeper.close()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "HOLDER_GRACE_SEC", 0.1)
    monkeypatch.setattr(attempt_module, "BLOCKED_SEC", 0.1)


@pytest.mark.usefixtures("short_patience")
def test_a_lock_that_is_never_free_blocks_the_attempt(attempts: Attempts) -> None:
    """The keeper's own code in a child of this process, since its patience is to be shorter.

    Not in this process, whose other children it would kill.
    """
    attempts.lock.parent.mkdir()
    with attempts.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            try:
                attempt_module.Attempt(
                    marshal.loads(encode_launch(attempts.launch("echo", "run"))),
                    theirs,
                    signals=Signals(),
                    parent_group=None,
                    is_subreaper=False,
                    share_lock=lambda _fd, _group: None,
                ).run()
            finally:
                os._exit(0)
        theirs.close()
        os.waitpid(child, 0)
    ended = Conversation(Keeper(ours)).wait_for_end()
    assert isinstance(ended, Ended) and (ended.cause, ended.exit_code, ended.tail) == ("blocked", None, b"")


def test_an_attempt_that_is_over_does_not_stop_a_later_one(
    worker_process: WorkerProcess, keeper_server: KeeperServer, attempts: Attempts
) -> None:
    pids = worker_process.start("sleep", 600, attempt=12)
    for number in (1, 11):
        ended = run(keeper_server, attempts.shell("echo run", attempt=number))
        assert (ended.cause, ended.exit_code, ended.tail) == ("blocked", None, b"")
    assert is_alive(pids["agent"])
    assert run(keeper_server, attempts.shell("echo run", attempt=13)).tail == b"run\n"
