"""Test the instruments: the hostile agents, and that their journal shows what a careless worker does wrong."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobdb import Registry
from tests.support.agent.fleet import HOSTILE, Fleet
from tests.support.agent.hostile import LOST_EXIT, chosen_words
from tests.support.agent.journal import Entry, check_journal, read_journal
from tests.support.agent.process_table import MARK_VARIABLE, Mark, process_table
from tests.support.processes import module_environment, python_module
from tests.support.requirements import on_linux
from tests.support.waiting import wait_until

pytestmark = on_linux("has /proc and child subreapers")

WAYS = [
    "act=0.01",
    "setsid",
    "double-fork",
    "ignore-sigterm setsid",
    "close-fds double-fork fork-bomb=4",
    "clear-environment",
    "clear-environment close-fds double-fork",
    "flood=1",
    "setsid abandon",
]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet without a worker: what agents leave falls to this process, and is killed in the end."""
    with Fleet(tmp_path, {}, (), workers=0) as fleet:
        yield fleet


def start_agent(fleet: Fleet, words: str, attempt: int = 1) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        python_module(HOSTILE, fleet.agents),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # Marks are seen by all that runs on this machine: the folder's name is that of no other run's registry.
        env=module_environment(**{MARK_VARIABLE: f"{fleet.agents}:job:{attempt}"}),
    )
    assert process.stdin is not None
    process.stdin.write(words.encode())
    process.stdin.close()
    return process


def run_agent(fleet: Fleet, words: str, attempt: int = 1) -> int:
    return start_agent(fleet, words, attempt).wait(30)


def kinds(fleet: Fleet) -> list[tuple[str, int]]:
    return [(entry.kind, entry.attempt) for entry in read_journal(fleet.agents)]


@pytest.mark.parametrize("words", WAYS)
def test_an_agent_that_is_left_alone_acts_once(fleet: Fleet, words: str) -> None:
    assert run_agent(fleet, words) == 0
    wait_until(lambda: kinds(fleet) == [("start", 1), ("end", 1)])


@pytest.mark.parametrize("words", WAYS[1:])
def test_an_attempt_that_lives_is_seen_by_the_next(fleet: Fleet, words: str) -> None:
    first = start_agent(fleet, f"{words} hang")
    wait_until(lambda: kinds(fleet) == [("start", 1)])
    assert run_agent(fleet, "", attempt=2) == 90
    assert kinds(fleet) == [("start", 1), ("alive", 2), ("overlap", 2)]
    assert len(fleet.agent_processes(process_table())) >= 1
    fleet.kill_left_processes()
    assert fleet.left_processes() == [] and fleet.agent_processes(process_table()) == []
    assert run_agent(fleet, "", attempt=3) == 0
    first.wait(30)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("exit=75", 75),
        ("first:exit=3", 3),
        ("crash", -signal.SIGKILL),
        ("setsid crash", LOST_EXIT),
        ("double-fork crash", LOST_EXIT),
    ],
)
def test_exit_codes(fleet: Fleet, words: str, code: int) -> None:
    assert run_agent(fleet, words) == code
    assert chosen_words(f"a {words}", 2) == ["a", *(word for word in words.split() if "first:" not in word)]


def test_the_journal_shows_what_must_not_be() -> None:
    start, end, later = Entry("start", "j", 1), Entry("end", "j", 1), Entry("start", "j", 2)
    assert check_journal([start, end, later, Entry("start", "k", 1)]) == []
    assert check_journal([start, later]) == [], "killed before its end"
    for wrong in (
        [start, start],
        [start, end, end],
        [end],
        [later, start],
        [start, later, end],
        [start, Entry("alive", "j", 2, "17"), later],
        [Entry("overlap", "j", 2, "attempt 1")],
    ):
        assert check_journal(wrong) != []


def test_a_careless_worker_is_found_out(tmp_path: Path) -> None:
    """The control: it claims, renews and completes correctly, and still an attempt overlaps the one before."""
    url = f"sqlite:///{tmp_path / 'private' / 'jobs.db'}"
    (tmp_path / "private").mkdir(mode=0o700)
    registry = Registry.open(url, create=True)
    registry.register(agent="hostile", prompt="setsid first:hang", job_id="job")
    options = ("--agent", "hostile", "-c", 1, "--lease-sec", 1)
    careless = python_module("tests.support.agent.careless_worker")
    with registry, Fleet(tmp_path, module_environment(JOBDB_URL=url), options, workers=1, work=careless) as fleet:
        (worker,) = fleet.workers
        wait_until(lambda: kinds(fleet) == [("start", 1)])
        assert {process.mark for process in fleet.agent_processes(process_table())} == {
            Mark(url.replace("://", "//"), "job", 1)
        }
        worker.kill()
        assert worker.ended == [-signal.SIGKILL]
        worker.start()
        wait_until(lambda: ("overlap", 2) in kinds(fleet))
        assert len(check_journal(read_journal(fleet.agents))) == 2
        worker.kill()
        assert len(fleet.left_processes()) >= 1
    assert not any(os.path.exists(f"/proc/{process.pid}") for process in fleet.left_processes())
