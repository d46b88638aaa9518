"""Test the pure parts of a worker: lease times, slots, outbox, outcomes, pace, commands and the ends of commands."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb import Claim, EventKind, GiveBack, InvalidInput, NewEvent
from jobdb.core.lease_times import deadline, renewal_due
from jobdb.core.outcomes import clean, describe_exception
from jobdb.core.publishable import why_unpublishable
from jobdb.work.artifacts import Artifacts
from jobdb.work.channel import ChannelEvent, FinalWords
from jobdb.work.command import agent_environment, check_command, fill_placeholders, uses_prompt
from jobdb.work.command_end import read_end, read_loss
from jobdb.work.host import is_gone, process_start
from jobdb.work.keeper.messages import Ended, Lost, StartFailure
from jobdb.work.outbox import MOST_EVENTS, Outbox
from jobdb.work.outcomes import (
    Deferred,
    Failed,
    NotStarted,
    Report,
    Stop,
    StopCause,
    Stopped,
    Succeeded,
    Vanished,
    ending,
    retry_delay_sec,
)
from jobdb.work.pace import ClaimPace, RetryPace, StatesPace
from jobdb.work.runner import RunnerUnusable
from jobdb.work.slots import SIGN_SLACK_SEC, Slot
from tests.support.fake_work import make_job

# -- lease times


@given(st.floats(0, 1e9), st.floats(0.5, 1e6))
def test_a_lease_is_renewed_twice_before_its_deadline_and_left_before_its_end(asked_at: float, lease: float) -> None:
    first = renewal_due(asked_at, lease)
    assert asked_at < first < deadline(asked_at, lease) < asked_at + lease
    assert renewal_due(first, lease) < deadline(asked_at, lease)
    assert deadline(asked_at, lease) <= asked_at + lease - min(0.1, lease / 6) + 1e-6 * asked_at


# -- slots


def make_slot(**fields: Any) -> Slot:
    job = make_job("a", **fields)
    return Slot(Claim(job, 1, "w", None), asked_at=100.0, lease_sec=60.0)


def test_only_limits_that_were_asked_for_stop_a_slot() -> None:
    slot = make_slot()
    assert slot.overdue(149.9) is None and slot.next_check() == 120.0
    stop = slot.overdue(150.0)
    assert stop is not None and stop.cause is StopCause.DEADLINE and stop.at_once


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["sign", "progress", "question"])), max_size=20))
def test_idle_time_counts_from_the_last_sign_and_stands_still_for_a_question(steps: list[tuple[float, str]]) -> None:
    slot = make_slot(idle_timeout_sec=20)
    now, silent_since, is_asking = 100.0, 100.0, False
    for pause, what in steps:
        now += pause
        assert slot.overdue(min(now, 149.0)) is None
        assert slot.idle_at() == (float("inf") if is_asking else silent_since + 20 + SIGN_SLACK_SEC)
        silent_since = now
        if what == "sign":
            slot.note_sign(now)
        else:
            is_asking = what == "question"
            slot.note_event(EventKind.PERMISSION_REQUIRED if is_asking else EventKind.PROGRESS, now)


def test_a_sign_of_life_that_is_learned_of_late_counts_from_when_it_was() -> None:
    slot = make_slot(idle_timeout_sec=20)
    for sign_at in (115.0, 90.0):
        slot.note_sign(sign_at)
        assert slot.idle_at() == 135.0 + SIGN_SLACK_SEC


# -- outbox


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["event", "many", "end", "write", "discard"])), max_size=40)
)
def test_nothing_is_lost_doubled_or_written_out_of_order(steps: list[tuple[int, str]]) -> None:
    outbox, number = Outbox(), 0
    expected: dict[int, list[str]] = {}
    written: dict[int, list[str]] = {}
    ended: set[int] = set()

    def write() -> None:
        batch = outbox.next()
        assert len(batch.events) <= MOST_EVENTS
        outbox.remove(batch)
        for event in batch.events:
            written.setdefault(int(event.job_id), []).append(event.detail)
        for key in batch.endings:
            written.setdefault(int(key[0]), []).append("end")

    for job, what in steps:
        key = (str(job), 1)
        if what in ("event", "many") and job not in ended:
            for _ in range(1 if what == "event" else 300):
                number += 1
                outbox.add_event(NewEvent(job_id=key[0], event="progress", detail=str(number), attempt=1))
                expected.setdefault(job, []).append(str(number))
        elif what == "end" and job not in ended:
            ended.add(job)
            outbox.add_ending(key, GiveBack(job_id=key[0], attempt=1, reason="r"))
            expected.setdefault(job, []).append("end")
        elif what == "write":
            write()
        elif what == "discard" and job not in ended:
            ended.add(job)
            outbox.discard(key)
            expected[job] = written.get(job, [])[:]
    while outbox:
        write()
    assert {job: log for job, log in written.items() if log} == {job: log for job, log in expected.items() if log}


# -- outcomes

REPORTS: list[Report] = [
    Succeeded(detail="d", data={"a": 1}),
    Failed(reason="r"),
    Failed(reason="r", is_final=True),
    Deferred(reason="r", delay_sec=30.0),
    Vanished(reason="r"),
    NotStarted(reason="r"),
    Stopped(),
]


def describe(end: NewEvent | GiveBack | None) -> str:
    if end is None:
        return "nothing"
    if isinstance(end, NewEvent):
        return str(end.event)
    return f"back, {end.limit} tries" if end.counts else "back"


@pytest.mark.parametrize(
    ("cause", "ends"),
    [
        (None, ["completed", "back, 1 tries", "error", "back", "back, 3 tries", "back", "back, 3 tries"]),
        (StopCause.CANCELLED, ["nothing"] * 7),
        (StopCause.ENDED, ["nothing"] * 7),
        (StopCause.TAKEN_OVER, ["nothing"] * 7),
        (StopCause.TIMEOUT, ["back, 1 tries"] * 7),
        (StopCause.IDLE, ["back, 1 tries"] * 7),
        (StopCause.DRAIN, ["completed", "back", "back", "back", "back", "back", "back"]),
        (StopCause.DEADLINE, ["completed", *["back, 3 tries"] * 2, "back", "back, 3 tries", "back", "back, 3 tries"]),
    ],
)
def test_what_an_end_becomes(cause: StopCause | None, ends: list[str]) -> None:
    stop = None if cause is None else Stop(cause, "because")
    assert [describe(ending("a", 1, 0, report, stop)) for report in REPORTS] == ends


def test_why_an_event_cannot_be_published_names_no_invented_job() -> None:
    assert why_unpublishable(EventKind.PROGRESS, "step 1", {"pct": 10}) is None
    for detail, data in (("a\0b", {}), ("", {"a": float("nan")}), ("", {"a": object()}), ("x" * 70_000, {})):
        problem = why_unpublishable(EventKind.PROGRESS, detail, data)
        assert problem and "jjj" not in problem


def test_each_try_waits_longer_than_the_last() -> None:
    delays = [retry_delay_sec(strikes) for strikes in range(40)]
    assert delays == sorted(delays) and delays[0] == 1.0 and delays[-1] == 60.0
    back = ending("a", 3, 2, Failed(reason="r"), None)
    assert isinstance(back, GiveBack) and back.delay_sec == 4.0


def test_any_exception_can_be_told() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert describe_exception(Unspeakable()) == ("Unspeakable", {"exception": "Unspeakable", "message": ""})
    reason, data = describe_exception(ValueError("\0\ud800" + "x" * 10_000))
    assert len(reason) < 2100 and why_unpublishable(EventKind.ERROR, reason, data) is None


@given(st.text(st.characters(codec=None), max_size=50))
def test_clean_text_can_be_published(text: str) -> None:
    assert why_unpublishable(EventKind.ERROR, clean(text), {"tail": clean(text)}) is None


# -- pace


def test_a_claim_that_got_all_it_wanted_is_followed_by_the_next_at_once() -> None:
    pace = ClaimPace()
    assert pace.next_ask() <= 100.0
    pace.asked(100.0, wanted=8, got=8)
    assert pace.next_ask() <= 100.0
    pace.asked(100.0, wanted=8, got=3)
    assert pace.next_ask() == 101.0
    pace.note_change()
    assert pace.next_ask() <= 100.0


def test_claims_in_vain_have_a_budget() -> None:
    pace, now, asked = ClaimPace(), 100.0, 0
    for _ in range(10_000):
        now += 0.001
        pace.note_change()
        if now >= pace.next_ask():
            pace.asked(now, wanted=1, got=0)
            asked += 1
    assert 245 <= asked <= 265


def test_states_are_asked_for_soon_after_a_change() -> None:
    pace = StatesPace()
    pace.asked(100.0)
    assert pace.next_ask() == 101.5
    pace.note_change()
    assert pace.next_ask() == 100.25
    pace.suspect()
    assert pace.next_ask() < 100.0


def test_pauses_grow_and_begin_anew() -> None:
    pace = RetryPace()
    assert [pace.failed(100.0) for _ in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0] and pace.until == 101.0
    pace.succeeded()
    assert pace.until < 100.0 and pace.failed(100.0) == 0.05


# -- commands


def test_a_prompt_as_an_argument_has_a_limit() -> None:
    values = {"prompt_file": "/p", "job_id": "a", "attempt": 1}
    assert fill_placeholders(["{prompt}"], prompt="x" * 131_071, **values) == ["x" * 131_071]
    with pytest.raises(InvalidInput, match=r"write \{prompt_file\}"):
        fill_placeholders(["a{prompt}"], prompt="é" * 65_536, **values)
    assert uses_prompt(["a", "--file={prompt_file}"]) and not uses_prompt(["{job_id}", "{attempt}", "{}", "{prompts}"])


def test_the_environment_has_no_secret() -> None:
    environ = {"JOBDB_KEY": "k", "PGPASSWORD": "p", "JOBDB_URL": "postgresql://me:pw@host/db", "PATH": "/bin"}
    found = agent_environment(environ, url="postgresql://me@host/db", worker="w")
    assert found == {"PATH": "/bin", "JOBDB_URL": "postgresql://me@host/db", "JOBDB_WORKER": "w"}


@pytest.mark.parametrize(
    ("program", "code"),
    [("sh", None), ("no-such-program", 127), ("./no-such", 127), ("/", 126), ("plain", 126), ("./{job_id}", None)],
)
def test_a_command_is_checked_before_it_is_needed(program: str, code: int | None, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n", "ascii")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    if code is None:
        check_command([program], folder=str(tmp_path), path=path)
        return
    with pytest.raises(RunnerUnusable) as caught:
        check_command([program], folder=str(tmp_path), path=path)
    assert caught.value.exit_code == code


def test_a_missing_folder_is_told() -> None:
    with pytest.raises(RunnerUnusable, match="the working folder /nowhere does not exist"):
        check_command(["sh"], folder="/nowhere", path=None)


# -- the ends of commands


def end_of(**fields: Any) -> Ended:
    usual: dict[str, Any] = {
        **dict.fromkeys(("exit_code", "signal", "start_error", "cause")),
        "stage": "run",
        "duration_sec": 1.5,
        "tail": b"",
        "log_bytes": 0,
        "dropped_bytes": 0,
        "leftovers": 0,
        "contained_by": "group",
    }
    return Ended(**{**usual, **fields})


@pytest.mark.parametrize(
    ("fields", "report"),
    [
        ({"exit_code": 0}, Succeeded(data={"duration_sec": 1.5, "exit_code": 0})),
        (
            {"exit_code": 2, "stage": "after"},
            Succeeded(data={"duration_sec": 1.5, "exit_code": 0, "after": "exit code 2"}),
        ),
        ({"exit_code": 0, "cause": "terminated"}, Stopped(data={"duration_sec": 1.5, "exit_code": 0})),
        ({"cause": "deadline"}, Stopped(data={"duration_sec": 1.5})),
        (
            {"exit_code": 75},
            Deferred(
                reason="exit code 75: try again later", delay_sec=30.0, data={"duration_sec": 1.5, "exit_code": 75}
            ),
        ),
        (
            {"signal": signal.SIGSEGV, "tail": b"a\0\xff", "leftovers": 2},
            Failed(
                reason="the command ended with signal SIGSEGV",
                data={"duration_sec": 1.5, "signal": "SIGSEGV", "tail": "a\\x00\ufffd", "leftovers": 2},
            ),
        ),
        (
            {"exit_code": 75, "stage": "before", "tail": b"x\nno tree\n"},
            NotStarted(reason="--before failed with exit code 75: no tree", delay_sec=30.0),
        ),
        (
            {"cause": "blocked"},
            NotStarted(reason="processes of an earlier attempt are still alive and cannot be killed", delay_sec=5.0),
        ),
        (
            {"start_error": StartFailure("command", errno.ENOENT, "No such file")},
            NotStarted(reason="the command cannot be started: No such file", exit_code=127),
        ),
        (
            {"start_error": StartFailure("command", errno.EACCES, "Permission denied")},
            NotStarted(reason="the command cannot be started: Permission denied", exit_code=126),
        ),
        (
            {"start_error": StartFailure("folder", errno.ENOENT, "No such file")},
            NotStarted(reason="the working folder cannot be entered: No such file", exit_code=126),
        ),
        (
            {"start_error": StartFailure("process", errno.EAGAIN, "no more processes")},
            NotStarted(reason="the command cannot be started: no more processes", delay_sec=5.0),
        ),
    ],
)
def test_what_the_end_of_a_command_means(fields: dict[str, Any], report: Report) -> None:
    assert read_end(end_of(**fields), FinalWords(), None) == report


def test_arguments_that_are_too_long_end_the_job() -> None:
    failure = StartFailure("command", errno.E2BIG, "Argument list too long")
    report = read_end(end_of(start_error=failure), FinalWords(), None)
    assert isinstance(report, Failed) and report.is_final and "{prompt_file}" in report.reason


def test_the_agents_last_words_count_if_it_ended_that_way() -> None:
    words = FinalWords()
    words.hear(ChannelEvent(EventKind.COMPLETED, "all sorted", {"files": 3}))
    words.hear(ChannelEvent(EventKind.ERROR, "no input", {"line": 7}))
    done = read_end(end_of(exit_code=0), words, Artifacts({"a": {"bytes": 1}}, []))
    assert isinstance(done, Succeeded) and done.detail == "all sorted"
    assert done.data == {"files": 3, "duration_sec": 1.5, "exit_code": 0, "artifacts": {"a": {"bytes": 1}}}
    failed = read_end(end_of(exit_code=1), words, None)
    assert isinstance(failed, Failed) and (failed.reason, failed.data["line"]) == ("no input", 7)
    missing = read_end(end_of(exit_code=0), words, Artifacts({}, [("b", "does not exist")]))
    assert isinstance(missing, Failed) and missing.data["missing"] == {"b": "does not exist"}


def test_a_lost_keeper_costs_a_try_only_if_something_ran() -> None:
    assert isinstance(read_loss(Lost(True)), Vanished) and isinstance(read_loss(Lost(False)), NotStarted)


# -- dead workers


def test_a_process_is_gone_if_its_id_is_free_or_belongs_to_another() -> None:
    started = process_start(os.getpid())
    assert started and not is_gone(os.getpid(), started) and is_gone(os.getpid(), started + 1)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert process_start(child) == 0 and is_gone(child, 5)
    os.waitpid(child, 0)
    assert process_start(child) is None and is_gone(child, 5)
