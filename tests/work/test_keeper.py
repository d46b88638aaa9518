"""Test an attempt under a keeper: what the agent gets, the stages, how each end is reported."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from jobdb.work.keeper.client import KeeperServer
from jobdb.work.keeper.messages import Activity, Ended, Started, StartFailure
from tests.support.keepers import Attempts, begin, run
from tests.support.process_marks import marked_processes

PYTHON = (sys.executable, "-I", "-S", "-c")


def test_an_agent_runs_to_its_end(each_keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation = begin(each_keeper_server, attempts.shell("echo out; echo err >&2; exit 7"))
    ended = conversation.wait_for_end()
    assert (ended.stage, ended.exit_code, ended.signal, ended.start_error, ended.cause) == ("run", 7, None, None, None)
    assert ended.tail == b"out\nerr\n" == attempts.log.read_bytes()
    assert (ended.log_bytes, ended.dropped_bytes, ended.leftovers) == (8, 0, 0)
    assert ended.duration_sec > 0
    assert [type(message) for message in conversation.messages] == [Started, Activity, Ended]
    conversation.keeper.close()


def test_the_environment_is_what_was_given_and_the_mark(keeper_server: KeeperServer, attempts: Attempts) -> None:
    given = {"PATH": os.environ["PATH"], "A": "ä\n", "JOBDB_PROCESS_MARK": "of somebody else"}
    launch = attempts.launch("env", "-0", environment=given)
    entries = run(keeper_server, launch).tail.split(b"\0")[:-1]
    expected = {**given, "JOBDB_PROCESS_MARK": f"{attempts.mark}1"}
    assert sorted(entries) == sorted(f"{name}={value}".encode() for name, value in expected.items())


def test_the_agent_has_three_descriptors_and_a_session(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = "import os; print(sorted(os.listdir('/proc/self/fd')), os.getsid(0) == os.getpgid(0) == os.getpid())"
    # The fourth is that of the listing.
    assert run(keeper_server, attempts.launch(*PYTHON, script)).tail == b"['0', '1', '2', '3'] True\n"


def test_the_agent_has_default_signals(keeper_server: KeeperServer, attempts: Attempts) -> None:
    tail = run(keeper_server, attempts.launch("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")).tail
    masks = [int(line.split()[1], 16) for line in tail.splitlines()]
    reserved = 1 << 31 | 1 << 32  # signals 32 and 33 are the C library's own; nobody can set them
    assert len(masks) == 2 and all(mask & ~reserved == 0 for mask in masks), tail


def test_the_agent_dies_with_its_keeper(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    launch = attempts.launch(sys.executable, "-I", "-c", script)
    assert run(keeper_server, launch).tail == b"%d\n" % signal.SIGKILL


def test_stdin_is_the_file(keeper_server: KeeperServer, attempts: Attempts, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt"
    prompt.write_bytes(b"prompt " * 600_000)
    ended = run(keeper_server, attempts.launch("wc", "-c", stdin=str(prompt)))
    assert ended.tail == b"4200000\n"
    assert run(keeper_server, attempts.launch("wc", "-c")).tail == b"0\n"


def test_an_agent_may_close_its_descriptors(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = "import os, time; os.closerange(0, 4096); time.sleep(0.05); os._exit(5)"
    ended = run(keeper_server, attempts.launch(*PYTHON, script))
    assert (ended.exit_code, ended.tail, ended.cause) == (5, b"", None)


def test_a_signal_that_ends_the_agent_is_reported(keeper_server: KeeperServer, attempts: Attempts) -> None:
    ended = run(keeper_server, attempts.shell("kill -SEGV $$"))
    assert (ended.exit_code, ended.signal, ended.cause) == (None, signal.SIGSEGV, None)


@pytest.mark.parametrize(
    ("argv", "part", "number"),
    [
        (("no-such-program",), "command", errno.ENOENT),
        (("./no-such-program",), "command", errno.ENOENT),
        (("",), "command", errno.ENOENT),
        (("./not-executable",), "command", errno.EACCES),
        (("/",), "command", errno.EACCES),
        (("true", "x" * 4_200_000), "command", errno.E2BIG),
        (("true", "a\0b"), "command", errno.EINVAL),
    ],
)
def test_what_cannot_be_executed_is_told(
    keeper_server: KeeperServer, attempts: Attempts, argv: tuple[str, ...], part: str, number: int
) -> None:
    (attempts.folder / "not-executable").write_text("#!/bin/sh\n")
    conversation = begin(keeper_server, attempts.launch(*argv))
    ended = conversation.wait_for_end()
    assert ended.start_error == StartFailure(part, number, os.strerror(number))
    assert (ended.stage, ended.exit_code, ended.signal, ended.leftovers) == ("run", None, None, 0)
    assert conversation.of_kind(Started) == []


def test_missing_files_are_told(keeper_server: KeeperServer, attempts: Attempts) -> None:
    missing = str(attempts.folder / "missing")
    for part in ("folder", "stdin", "channel"):
        ended = run(keeper_server, attempts.launch("true", **{part: missing}))
        assert ended.start_error == StartFailure(part, errno.ENOENT, os.strerror(errno.ENOENT)), part
    ended = run(keeper_server, attempts.launch("true", lock="/proc/nowhere/job.lock"))
    assert ended.start_error is not None and ended.start_error.part == "lock"
    regular = attempts.folder / "regular"
    regular.touch()
    ended = run(keeper_server, attempts.launch("true", channel=str(regular)))
    assert ended.start_error is not None and ended.start_error.part == "channel"


def test_a_script_without_an_interpreter_line_is_the_shells(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = attempts.folder / "agent"
    script.write_text("echo $1 of $0\n")
    script.chmod(0o700)
    assert run(keeper_server, attempts.launch("./agent", "one")).tail == b"one of ./agent\n"


def test_the_path_is_that_of_the_agent(keeper_server: KeeperServer, attempts: Attempts) -> None:
    first, second = attempts.folder / "first", attempts.folder / "second"
    for folder, mode in ((first, 0o600), (second, 0o700)):
        folder.mkdir()
        (folder / "agent").write_text("#!/bin/sh\necho found\n")
        (folder / "agent").chmod(mode)
    environment = {"PATH": f"{first}:{second}:/nowhere"}
    assert run(keeper_server, attempts.launch("agent", environment=environment)).tail == b"found\n"
    environment = {"PATH": f"{first}:/nowhere"}
    ended = run(keeper_server, attempts.launch("agent", environment=environment))
    assert ended.start_error is not None and ended.start_error.errno == errno.EACCES


def test_stages_run_in_order(keeper_server: KeeperServer, attempts: Attempts) -> None:
    launch = attempts.shell("echo run; exit 0", before="echo before; pwd", after="echo after; cat")
    ended = run(keeper_server, launch)
    assert ended.tail == f"before\n{attempts.folder}\nrun\nafter\n".encode()
    assert (ended.stage, ended.exit_code) == ("run", 0)


@pytest.mark.parametrize(
    ("before", "main", "after", "stage", "exit_code", "output"),
    [
        ("exit 3", "echo run", "echo after", "before", 3, b""),
        ("true", "exit 4", "echo after; exit 5", "run", 4, b"after\n"),
        ("true", "echo run", "exit 5", "after", 5, b"run\n"),
        (None, "echo run", "exit 5", "after", 5, b"run\n"),
    ],
)
def test_the_first_failing_stage_is_told(
    keeper_server: KeeperServer,
    attempts: Attempts,
    before: str | None,
    main: str,
    after: str,
    stage: str,
    exit_code: int,
    output: bytes,
) -> None:
    ended = run(keeper_server, attempts.shell(main, before=before, after=after))
    assert (ended.stage, ended.exit_code, ended.tail) == (stage, exit_code, output)


def test_after_runs_when_the_agent_cannot_be_started(keeper_server: KeeperServer, attempts: Attempts) -> None:
    ended = run(keeper_server, attempts.launch("no-such-program", after="echo after"))
    assert ended.start_error is not None and (ended.stage, ended.tail) == ("run", b"after\n")


def test_what_before_has_started_lives_as_long_as_the_agent(keeper_server: KeeperServer, attempts: Attempts) -> None:
    launch = attempts.shell("kill -0 $(cat pid) && echo alive", before="sleep 600 & echo $! > pid")
    ended = run(keeper_server, launch)
    assert (ended.tail, ended.leftovers) == (b"alive\n", 1)


def test_the_lock_is_free_and_gone_when_the_end_is_told(keeper_server: KeeperServer, attempts: Attempts) -> None:
    for attempt in range(1, 4):
        conversation = begin(keeper_server, attempts.shell(f"ls {attempts.lock}", attempt=attempt))
        assert conversation.wait_for_end().tail == f"{attempts.lock}\n".encode()
        assert not attempts.lock.exists()
        assert len(conversation.messages) == 3  # no `Blocked`
        conversation.keeper.close()


def test_many_attempts_share_a_server(keeper_server: KeeperServer, attempts: Attempts) -> None:
    ends: list[Ended] = []
    conversations = [
        begin(keeper_server, attempts.shell(f"exit {number}", lock=str(attempts.folder / f"{number}.lock"), log=None))
        for number in range(40)
    ]
    for conversation in conversations:
        ends.append(conversation.wait_for_end())
        conversation.keeper.close()
    assert [ended.exit_code for ended in ends] == list(range(40))


def test_a_server_ends_with_its_attempts(attempts: Attempts) -> None:
    with KeeperServer() as server:
        conversation = begin(server, attempts.shell("sleep 600", after="touch after"))
        conversation.wait_for(Started)
        pid = server.pid
    assert not Path(f"/proc/{pid}").exists()
    assert marked_processes(attempts.mark) == {}
    assert conversation.wait_for_end().cause == "killed"
    assert not (attempts.folder / "after").exists()


def test_the_log_takes_what_the_worker_writes(keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation = begin(keeper_server, attempts.launch("sleep", 600))
    conversation.wait_for(Started)
    conversation.keeper.write_log(b"a line of the worker's\n")
    conversation.keeper.terminate(0)
    conversation.wait_for_end()
    assert attempts.log.read_bytes() == b"a line of the worker's\n"
