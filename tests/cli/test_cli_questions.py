"""Test ask, questions and answer in real processes: exit codes, what is printed, and that nothing allows by default."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.cli_runner import COMMAND
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until


def claimed(cli: Any) -> tuple[str, dict[str, str]]:
    """Register and claim a job; return its id and the environment of its agent."""
    job = cli.register()
    cli("claim", "--job", job)
    return job, {"JOBDB_JOB_ID": job, "JOBDB_ATTEMPT": "1"}


def ask_in_background(cli: Any, *arguments: str) -> Any:
    """Start a command that asks; return its process once the question is recorded."""
    before = len(cli("questions", "--all").lines)
    process = cli.start("ask", *arguments)
    wait_until(lambda: len(cli("questions", "--all").lines) > before)
    return process


def end_of(process: Any) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=60)
    return process.returncode, out.decode(), errors.decode()


@pytest.mark.parametrize(("answer", "code"), [("allow", 0), ("deny", 1)])
def test_an_agent_asks_and_a_person_answers(cli: Any, answer: str, code: int) -> None:
    job, agent = claimed(cli)
    cli.env |= agent
    asking = ask_in_background(cli, "-", "May I delete build/?", "--key", "build", "--wait", "60")
    (shown,) = cli("questions", "--json").json_lines
    assert (shown["job_id"], shown["key"], shown["attempt"], shown["answer"]) == (job, "build", 1, None)
    told = cli("answer", f"{job}/build", answer, "--message", "it is old", "--by", "ann").err
    assert told == f"answered question build of job {job} with {answer!r}\n"
    assert end_of(asking) == (code, f"{answer}\n", "ann: it is old\n")
    events = cli("events", job, "--json").json_lines
    assert [event["event"] for event in events] == ["permission_required", "progress"]
    # Asked again, the answer is there at once, and there is no further event.
    assert cli("ask", "-", "May I delete build/?", "--key", "build", code=code).out == f"{answer}\n"
    assert "first answer is final" in cli("answer", f"{job}/build", "allow", code=1).err
    assert len(cli("events", job).lines) == 2


def test_without_an_answer_nothing_is_allowed(cli: Any) -> None:
    _job, agent = claimed(cli)
    asked = cli("ask", "-", "May I?", "--key", "k", env=agent, code=3)
    assert asked.out == "" and "/k ANSWER' answers it" in asked.err
    assert cli("ask", "-", "May I?", "--key", "k", "--wait", "0.2", env=agent, code=3).out == ""
    assert cli("ask", "-", "May I?", "--key", "k", "--json", env=agent, code=3).json["answer"] is None
    denied = cli("ask", "-", "May I?", "--key", "k", "--wait", "0.2", "--default", "deny", env=agent, code=1)
    assert denied.out == "deny\n"
    (question,) = cli("questions", "--all", "--json").json_lines
    assert (question["answer"], question["answered_by"]) == ("deny", "timeout")


def test_a_person_who_is_faster_than_the_default_counts(cli: Any) -> None:
    job, agent = claimed(cli)
    cli("ask", "-", "May I?", "--key", "k", env=agent, code=3)
    cli("answer", job, "allow")
    assert cli("ask", "-", "May I?", "--key", "k", "--wait", "0", "--default", "deny", env=agent).out == "allow\n"


@pytest.mark.parametrize("default", ["allow", "Deny", "yes", ""])
def test_there_is_no_default_that_allows(cli: Any, default: str) -> None:
    job = cli.register()
    assert "only default is 'deny'" in cli("ask", job, "May I?", "--wait", "1", "--default", default, code=2).err
    assert cli("questions", "--all").out == ""


def test_a_default_needs_a_time_and_a_choice(cli: Any) -> None:
    job = cli.register()
    assert "--wait" in cli("ask", job, "?", "--default", "deny", code=2).err
    refused = cli("ask", job, "?", "--choices", "a,b", "--wait", "1", "--default", "deny", code=2)
    assert "among the --choices" in refused.err
    assert "--choices" in cli("ask", job, "?", "--choices", "a,,b", code=2).err
    for seconds in ("-1", "nan"):
        assert "--wait" in cli("ask", job, "?", "--wait", seconds, code=2).err


def test_choices_and_free_text(cli: Any) -> None:
    job, agent = claimed(cli)
    for key, choices, answer, code in (
        ("branch", "main, develop", "develop", 0),
        ("text", "", "name it 'x y'", 0),
        ("text2", "", "deny", 1),
        ("later", "allow,deny,later", "later", 1),
    ):
        cli("ask", "-", "?", "--key", key, "--choices", choices, env=agent, code=3)
        cli("answer", f"{job}/{key}", answer)
        assert cli("ask", "-", "?", "--key", key, "--wait", "9", env=agent, code=code).out == f"{answer}\n"
    cli("ask", "-", "?", "--key", "other", "--choices", "main,develop", env=agent, code=3)
    assert "main, develop" in cli("answer", f"{job}/other", "allow", code=2).err


def test_the_end_of_the_job_is_a_code_of_its_own(cli: Any) -> None:
    job, agent = claimed(cli)
    cli.env |= agent
    asking = ask_in_background(cli, "-", "May I?", "--wait", "60")
    cli("cancel", job)
    code, out, errors = end_of(asking)
    assert (code, out) == (6, "") and "has ended as cancelled" in errors
    assert "has ended" in cli("ask", "-", "May I?", code=6).err
    assert "has ended" in cli("answer", job, "allow", code=1).err
    done = cli.register()
    cli("complete", done)
    cli("ask", done, "May I?", code=6)


def test_an_agent_whose_claim_is_lost_is_not_allowed(cli: Any) -> None:
    job, agent = claimed(cli)
    cli("ask", "-", "May I?", "--key", "k", env=agent, code=3)
    cli("answer", job, "allow")
    cli("release", job, "--attempt", "1")
    assert cli("ask", "-", "May I?", "--key", "k", "--wait", "5", env=agent, code=1).out == ""
    cli("claim", "--job", job)
    assert "attempt" in cli("ask", job, "May I?", "--key", "k", code=1).err
    second = {**agent, "JOBDB_ATTEMPT": "2"}
    assert cli("ask", "-", "May I?", "--key", "k", env=second).out == "allow\n"


def test_whatever_goes_wrong_does_not_allow(cli: Any) -> None:
    _job, agent = claimed(cli)
    cli("ask", "-", "May I?", env={**agent, "JOBDB_URL": f"sqlite:///{cli.folder}/none.db"}, code=5)
    cli("ask", "-", "May I?", env={**agent, "JOBDB_KEY": "A" * 43 + "="}, code=5)
    cli("ask", "-", "May I?", code=2)
    cli("ask", "nobody", "May I?", code=2)


def test_lists(cli: Any) -> None:
    job, agent = claimed(cli)
    cli("ask", "-", "May I?\nreally", "--key", "k", env=agent, code=3)
    cli("ask", "-", "Which?", "--key", "which", "--choices", "", env=agent, code=3)
    assert "the keys are k, which" in cli("answer", job, "allow", code=2).err
    cli("answer", f"{job}/k", "deny", "--by", "ann")
    first, second = (line.split("\t") for line in cli("questions", "--all").lines)
    assert (first[:3], first[4:7]) == ([job, "k", "1"], ["allow,deny", "deny", "ann"])
    assert first[7].startswith("May I?") and "really" in first[7]
    assert (second[4:7], second[7]) == (["-", "-", "-"], "Which?")
    assert len(cli("questions").lines) == len(cli("questions", job).lines) == 1
    assert "asks: which: Which?" in cli("show", job).out
    assert "questions\t1" in cli("stats").lines
    assert cli("questions", "nobody", code=2).out == ""


def test_who_answers_by_default(cli: Any) -> None:
    job = cli.register()
    cli("ask", job, "May I?", code=3)
    assert "@" in cli("answer", job, "deny", "--json").json["answered_by"]


def test_tables_on_a_terminal(cli: Any) -> None:
    job, agent = claimed(cli)
    cli("ask", "-", "May I delete build/?", "--key", "k", env=agent, code=3)
    for command in (("questions",), ("list",), ("show", job), ("watch", "--once")):
        assert "May I delete" in cli.run_in_terminal(*command, columns=160), command
    assert f"jobdb answer {job}/k allow" in cli.run_in_terminal("questions", columns=160)
    cli("answer", job, "deny")
    assert "deny" in cli.run_in_terminal("questions", "--all", columns=160)
    assert "May I delete" not in cli.run_in_terminal("list", columns=160)


def test_following(cli: Any) -> None:
    job, agent = claimed(cli)
    cli("ask", "-", "first", "--key", "k1", env=agent, code=3)
    following = cli.start("questions", "--follow", "--all", "--json")
    seen = [json.loads(following.stdout.readline())]
    cli("ask", "-", "second", "--key", "k2", env=agent, code=3)
    seen.append(json.loads(following.stdout.readline()))
    cli("answer", f"{job}/k1", "deny")
    seen.append(json.loads(following.stdout.readline()))
    assert [(found["key"], found["answer"]) for found in seen] == [("k1", None), ("k2", None), ("k1", "deny")]


def test_a_question_survives_the_process_that_asked(cli: Any) -> None:
    job, agent = claimed(cli)
    cli.env |= agent
    asking = ask_in_background(cli, "-", "May I?", "--key", "k", "--wait", "60")
    asking.kill()
    assert end_of(asking)[:2] == (-9, "")
    cli("answer", f"{job}/k", "allow")
    assert cli("ask", "-", "May I?", "--key", "k", "--wait", "60").out == "allow\n"
    assert [event["event"] for event in cli("events", job, "--json").json_lines] == ["permission_required", "progress"]


def test_of_two_that_wait_both_get_the_answer_and_one_acknowledges_it(cli: Any) -> None:
    job, agent = claimed(cli)
    cli.env |= agent
    cli("ask", "-", "May I?", "--key", "k", code=3)
    waiting = [cli.start("ask", "-", "May I?", "--key", "k", "--wait", "60") for _ in range(2)]
    cli("answer", job, "deny")
    assert [end_of(process)[:2] for process in waiting] == [(1, "deny\n")] * 2
    assert len(cli("events", job).lines) == 2


def test_the_live_view_answers_after_a_confirmation_that_was_seen(cli: Any) -> None:
    job, agent = claimed(cli)
    cli("ask", "-", "May I?", "--key", "k", env=agent, code=3)
    cli.run_in_terminal("watch", keys=("a allow", "okayq"), codes=(0,), columns=120)  # a pasted word
    assert cli("questions", job, "--json").json["answer"] is None
    command = [*COMMAND, "watch"]
    with Terminal(command, env={**cli.env, "TERM": "xterm-256color"}, folder=cli.folder) as terminal:
        terminal.read_until("a allow")
        terminal.type("d")
        terminal.read_until(r"deny\? y: yes")
        terminal.type("yq")
        terminal.read_to_end()
    (question,) = cli("questions", job, "--all", "--json").json_lines
    assert question["answer"] == "deny" and "@" in question["answered_by"]
