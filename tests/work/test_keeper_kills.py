"""Test the ways to end an attempt, on agents that resist: nothing of them is alive when the end is told."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from jobdb.system.boot_clock import boottime
from jobdb.work.keeper.client import Keeper, KeeperServer
from jobdb.work.keeper.messages import Blocked, Lost, Started
from tests.support.disks import freezable_disk, frozen
from tests.support.hostile_programs import PROGRAMS, READY, find_hostile, hostile_program
from tests.support.keepers import Attempts, Conversation, begin, run
from tests.support.process_marks import marked_processes, wait_until_none
from tests.support.waiting import wait_until

WAITING = "echo progress ready > $JOBDB_EVENTS; while :; do sleep 0.05; done"


def start_hostile(server: KeeperServer, attempts: Attempts, name: str, **changes: object) -> tuple[Conversation, str]:
    """Start a program, and wait until it has done what it is for; return its word, too."""
    word = uuid4().hex
    conversation = begin(server, attempts.launch(*hostile_program(name, word), **changes))
    conversation.wait_for_line(READY)
    assert find_hostile(word) != {}
    return conversation, word


def assert_nothing_is_alive(attempts: Attempts, word: str) -> None:
    assert (find_hostile(word), marked_processes(attempts.mark)) == ({}, {})


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_killed_attempt_leaves_nothing(each_keeper_server: KeeperServer, attempts: Attempts, name: str) -> None:
    conversation, word = start_hostile(each_keeper_server, attempts, name)
    conversation.keeper.kill()
    ended = conversation.wait_for_end()
    assert_nothing_is_alive(attempts, word)
    assert (ended.cause, ended.stage, ended.signal) == ("killed", "run", signal.SIGKILL)
    conversation.keeper.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_terminated_attempt_leaves_nothing(each_keeper_server: KeeperServer, attempts: Attempts, name: str) -> None:
    conversation, word = start_hostile(each_keeper_server, attempts, name)
    conversation.keeper.terminate(0.1)
    ended = conversation.wait_for_end()
    assert_nothing_is_alive(attempts, word)
    assert ended.cause == "terminated"
    conversation.keeper.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_closed_connection_ends_the_attempt(each_keeper_server: KeeperServer, attempts: Attempts, name: str) -> None:
    launch = {"after": f"touch {attempts.folder}/after"}
    conversation, word = start_hostile(each_keeper_server, attempts, name, **launch)
    conversation.keeper.close()
    wait_until_none(lambda: find_hostile(word) | marked_processes(attempts.mark))
    wait_until(lambda: not attempts.lock.exists())
    assert not (attempts.folder / "after").exists()


@pytest.mark.parametrize("name", ["double-fork", "setsid", "clear-environment", "fork-bomb"])
def test_what_an_ended_agent_leaves_is_killed(each_keeper_server: KeeperServer, attempts: Attempts, name: str) -> None:
    word = uuid4().hex
    arguments = [part.replace("ready()", "os._exit(9)") for part in hostile_program(name, word)]
    arguments[-2] = arguments[-2].replace("def os._exit(9)", "def ready()")
    ended = run(each_keeper_server, attempts.launch(*arguments))
    assert_nothing_is_alive(attempts, word)
    assert (ended.exit_code, ended.cause) == (9, None)
    assert ended.leftovers > 0


def test_the_deadline_ends_the_attempt(keeper_server: KeeperServer, attempts: Attempts) -> None:
    deadline = boottime() + 0.5
    conversation = begin(keeper_server, attempts.shell("sleep 600", deadline=deadline, after="echo after"))
    ended = conversation.wait_for_end()
    assert boottime() >= deadline
    assert (ended.cause, ended.signal, ended.tail) == ("deadline", signal.SIGKILL, b"")
    conversation.keeper.close()


def test_an_extended_deadline_counts(keeper_server: KeeperServer, attempts: Attempts) -> None:
    first = boottime() + 1
    conversation = begin(keeper_server, attempts.shell("sleep 600", deadline=first))
    conversation.wait_for(Started)
    conversation.keeper.extend(first + 120)
    wait_until(lambda: boottime() > first + 0.1)
    assert marked_processes(attempts.mark) != {}
    last = boottime() + 0.1
    conversation.keeper.extend(last)
    assert conversation.wait_for_end().cause == "deadline" and boottime() >= last
    conversation.keeper.close()


def test_there_may_be_no_deadline_and_no_end_of_a_grace(keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation = begin(keeper_server, attempts.shell("sleep 600", deadline=math.inf))
    conversation.wait_for(Started)
    conversation.keeper.extend(math.inf)
    conversation.keeper.terminate(math.inf)
    ended = conversation.wait_for_end()
    assert (ended.cause, ended.signal) == ("terminated", signal.SIGTERM)
    conversation.keeper.close()


def test_nothing_begins_after_the_deadline(keeper_server: KeeperServer, attempts: Attempts) -> None:
    ended = run(keeper_server, attempts.shell("echo run", deadline_sec=-1, before="echo before", after="echo after"))
    assert (ended.cause, ended.stage, ended.exit_code, ended.tail) == ("deadline", "before", None, b"")


def test_an_agent_may_end_orderly_within_the_grace(keeper_server: KeeperServer, attempts: Attempts) -> None:
    script = f"trap 'sleep 0.2; echo saved; exit 0' TERM; {WAITING}"
    conversation = begin(keeper_server, attempts.launch("sh", "-c", script, after="echo after"))
    conversation.wait_for_line(READY)
    conversation.keeper.terminate(60)
    ended = conversation.wait_for_end()
    assert (ended.cause, ended.exit_code, ended.tail) == ("terminated", 0, b"saved\nafter\n")
    conversation.keeper.close()


def test_the_grace_is_for_the_whole_tree(keeper_server: KeeperServer, attempts: Attempts) -> None:
    """A shell that dies of SIGTERM at once does not take the time from the program that it runs."""
    (attempts.folder / "child").write_text(f"trap 'sleep 0.3; echo saved; exit 0' TERM; {WAITING}")
    conversation = begin(keeper_server, attempts.launch("sh", "-c", "sh child 2> errors; true"))
    conversation.wait_for_line(READY)
    conversation.keeper.terminate(60)
    ended = conversation.wait_for_end()
    assert (ended.cause, ended.signal, ended.tail, ended.leftovers) == ("terminated", signal.SIGTERM, b"saved\n", 0)
    conversation.keeper.close()


def test_a_second_call_shortens_the_grace(keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation, word = start_hostile(keeper_server, attempts, "ignore-sigterm")
    conversation.keeper.terminate(600)
    conversation.keeper.terminate(0)
    assert conversation.wait_for_end().cause == "terminated"
    assert_nothing_is_alive(attempts, word)
    conversation.keeper.close()


def test_a_stopped_agent_receives_sigterm(keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation, word = start_hostile(keeper_server, attempts, "stopped")
    conversation.keeper.terminate(600)
    ended = conversation.wait_for_end()
    assert (ended.cause, ended.signal) == ("terminated", signal.SIGTERM)
    assert_nothing_is_alive(attempts, word)
    conversation.keeper.close()


@pytest.mark.parametrize("end", [lambda one: one.kill(), lambda one: one.terminate(600)])
def test_before_can_be_ended(keeper_server: KeeperServer, attempts: Attempts, end: Callable[[Keeper], None]) -> None:
    launch = attempts.shell("echo run", before="echo progress ready > $JOBDB_EVENTS; sleep 600", after="echo after")
    conversation = begin(keeper_server, launch)
    conversation.wait_for_line(READY)
    end(conversation.keeper)
    ended = conversation.wait_for_end()
    assert (ended.stage, ended.tail) == ("before", b"") and ended.cause in ("killed", "terminated")
    conversation.keeper.close()


def test_after_runs_in_spite_of_a_kill_and_can_be_killed_itself(
    keeper_server: KeeperServer, attempts: Attempts
) -> None:
    after = "echo after; echo progress after > $JOBDB_EVENTS; sleep 600"
    conversation = begin(keeper_server, attempts.shell("sleep 600", after=after))
    conversation.wait_for(Started)
    conversation.keeper.kill()
    conversation.wait_for_line(b"progress after")
    conversation.keeper.kill()
    ended = conversation.wait_for_end()
    assert (ended.cause, ended.stage, ended.signal, ended.tail) == ("killed", "run", signal.SIGKILL, b"after\n")
    conversation.keeper.close()


def test_the_deadline_ends_after(keeper_server: KeeperServer, attempts: Attempts) -> None:
    conversation = begin(keeper_server, attempts.shell("exit 0", after="echo after; sleep 600", deadline_sec=1))
    ended = conversation.wait_for_end()
    assert (ended.stage, ended.cause, ended.signal) == ("after", "deadline", signal.SIGKILL)
    conversation.keeper.close()


def test_a_process_that_cannot_be_killed_is_waited_for(keeper_server: KeeperServer, attempts: Attempts) -> None:
    with freezable_disk(attempts.folder / "disk") as disk:
        with frozen(disk):
            conversation = begin(keeper_server, attempts.shell("echo x > disk/file; sleep 600"))
            agent = conversation.wait_for(Started).pid
            wait_until(lambda: Path(f"/proc/{agent}/stat").read_text().split()[2] == "D")
            conversation.keeper.kill()
            assert conversation.wait_for(Blocked) == Blocked(agent)
            keeper = conversation.keeper.pid
            assert keeper is not None and wakeups(keeper) < 200
            assert attempts.lock.exists()
        assert conversation.wait_for_end().signal == signal.SIGKILL
        conversation.keeper.close()


def wakeups(pid: int) -> int:
    """Return how often a process has waited and gone on."""
    found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_an_agent_that_kills_its_keeper_is_killed(each_keeper_server: KeeperServer, attempts: Attempts) -> None:
    word = uuid4().hex
    script = "sleep 600 & setsid sh -c 'sleep 600' & kill -9 $PPID; sleep 600"
    conversation = begin(each_keeper_server, attempts.launch("sh", "-c", script, word))
    conversation.receive_until(lambda: conversation.keeper.has_ended)
    assert conversation.messages[-1] == Lost(started=True)
    wait_until_none(lambda: find_hostile(word) | marked_processes(attempts.mark))
    conversation.keeper.close()
