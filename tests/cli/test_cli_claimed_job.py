"""Test what a worker's commands take from its environment, claim --export, and the refusals without an attempt."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

SHELL_COMMAND = shlex.join([sys.executable, "-m", "jobdb.cli"])


def shell(cli: Any, script: str) -> str:
    """Run a script of the shell, with a function jobdb; return its output."""
    script = f'jobdb() {{ {SHELL_COMMAND} "$@"; }}\nset -eu\n{script}'
    done = subprocess.run(
        ["sh", "-c", script], env=cli.env, cwd=cli.folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def claimed_environment(job: str, attempt: int = 1) -> dict[str, str]:
    return {"JOBDB_JOB_ID": job, "JOBDB_ATTEMPT": str(attempt)}


def test_a_worker_names_its_job_once(cli: Any) -> None:
    job = cli.register()
    printed = shell(
        cli,
        """
        eval "$(jobdb claim --agent codex --export)"
        jobdb publish started
        jobdb publish progress --detail "step 1"
        jobdb renew --lease-sec 600 >/dev/null
        jobdb show --json >/dev/null
        jobdb events
        jobdb complete --detail done
        jobdb wait
        """,
    )
    assert printed.splitlines()[:2] == ["1", "2"] and printed.endswith("3\ncompleted\n")
    assert [event["attempt"] for event in cli("events", job, "--json").json_lines] == [1, 1, 1]


def test_export_prints_one_line_that_a_shell_evaluates(cli: Any) -> None:
    job = cli.register("--job-id", "sort-1:a.b@c")
    assert cli("claim", "--export").out == f"export JOBDB_JOB_ID={shlex.quote(job)} JOBDB_ATTEMPT=1\n"
    nothing = cli("claim", "--export", code=1)
    assert nothing.out == "" and "no job is ready" in nothing.err
    assert "--json" in cli("claim", "--export", "--json", code=2).err


def test_export_quotes_an_id_that_came_from_elsewhere(cli: Any) -> None:
    hostile = "x'; touch owned; echo '$(touch owned) `touch owned` \" \\"
    job = cli.register()
    with sqlite3.connect(cli.database) as connection:
        connection.execute("UPDATE jobs SET job_id = ? WHERE job_id = ?", (hostile, job))
    connection.close()
    printed = shell(cli, 'eval "$(jobdb claim --export)"; printf "%s|%s" "$JOBDB_JOB_ID" "$JOBDB_ATTEMPT"')
    assert printed == f"{hostile}|1"
    assert not (cli.folder / "owned").exists()


@pytest.mark.parametrize("command", ["renew", "release", "publish progress", "complete", "fail"])
def test_a_job_under_a_lease_demands_its_attempt(cli: Any, command: str) -> None:
    job = cli.register()
    cli("claim", "--worker", "host1:4711")
    name, *event = command.split()
    before = cli("show", job, "--json").json
    refused = cli(name, job, *event, code=1)
    assert refused.out == "" and "attempt 1" in refused.err and "--attempt 1" in refused.err
    assert "host1:4711" in refused.err and "JOBDB_ATTEMPT=1" in refused.err
    assert cli("show", job, "--json").json == before
    cli(name, job, *event, "--attempt", "1")


def test_an_attempt_of_the_environment_is_used_for_its_own_job_only(cli: Any) -> None:
    mine = cli.register()
    other = cli.register()
    free = cli.register()
    for job in (mine, other):
        cli("claim", "--job", job)
    env = claimed_environment(mine)
    assert "attempt 1" in cli("publish", other, "progress", env=env, code=1).err
    for name in ("renew", "release", "complete", "fail"):
        cli(name, other, env=env, code=1)
    assert cli("publish", free, "progress", env=env).out == "1\n"
    assert cli("events", free, "--json").json["attempt"] is None, "not fenced: it has no claim"
    assert cli("publish", other, "progress", "--attempt", "1", env=env).out == "1\n"
    assert cli("publish", mine, "progress", env=env).out == "1\n"
    assert cli("show", env=env).out.startswith(f"job: {mine}\n")
    assert cli("show", other, env=env).out.startswith(f"job: {other}\n")


def test_an_attempt_without_a_job_in_the_environment_is_for_the_job_that_is_named(cli: Any) -> None:
    job = cli.register()
    cli("claim")
    cli("publish", job, "progress", env={"JOBDB_ATTEMPT": "1"})
    assert "attempt 2" in cli("publish", job, "progress", env={"JOBDB_ATTEMPT": "2"}, code=1).err
    cli("publish", job, "progress", "--attempt", "1", env={"JOBDB_ATTEMPT": "2"})
    cli("publish", job, "progress", env={"JOBDB_ATTEMPT": "1", "JOBDB_JOB_ID": ""})


@pytest.mark.parametrize("text", ["x", "1.0", "-1", " 1", "1" * 17, "¹"])
def test_an_attempt_of_the_environment_that_is_no_number(cli: Any, text: str) -> None:
    job = cli.register()
    other = cli.register()
    cli("claim", "--job", job)
    env = {"JOBDB_JOB_ID": job, "JOBDB_ATTEMPT": text}
    assert "JOBDB_ATTEMPT" in cli("publish", "progress", env=env, code=2).err
    cli("publish", "progress", "--attempt", "1", env=env)
    cli("publish", other, "progress", env=env)
    cli("show", env=env)
    assert "without an attempt" in cli("publish", "progress", env=env | {"JOBDB_ATTEMPT": ""}, code=1).err


def test_one_argument_is_an_event_of_the_environments_job(cli: Any) -> None:
    mine = cli.register()
    named = cli.register("--job-id", "progress")
    for job in (mine, named):
        cli("claim", "--job", job)
    env = claimed_environment(mine)
    cli("publish", "progress", env=env)
    assert (cli("show", mine, "--json").json["last_seq"], cli("show", named, "--json").json["last_seq"]) == (1, 0)
    cli("publish", named, "progress", "--attempt", "1", env=env)
    assert (cli("show", mine, "--json").json["last_seq"], cli("show", named, "--json").json["last_seq"]) == (1, 1)
    for words in (("progres",), (mine,), ()):
        refused = cli("publish", *words, env=env, code=2).err
        assert "the event is missing" in refused and "jobdb publish JOB EVENT" in refused
    refused = cli("publish", "progress", code=2).err
    assert "the job is missing" in refused and "claim --export" in refused
    assert "the event is missing" in cli("publish", mine, code=2).err


@pytest.mark.parametrize("command", ["complete", "fail", "renew", "release", "show", "events", "wait"])
def test_without_a_job_there_is_advice(cli: Any, command: str) -> None:
    for env in ({}, {"JOBDB_JOB_ID": "", "JOBDB_ATTEMPT": "1"}):
        refused = cli(command, env=env, code=2)
        assert refused.out == "" and "the job is missing" in refused.err and "claim --export" in refused.err
    assert "no job 'nosuch'" in cli(command, env={"JOBDB_JOB_ID": "nosuch", "JOBDB_ATTEMPT": "1"}, code=2).err


@pytest.mark.parametrize(
    "command", [("cancel",), ("token", "show"), ("token", "rotate"), ("token", "list"), ("ticket",)]
)
def test_what_no_worker_does_to_its_job_names_it(cli: Any, command: tuple[str, ...]) -> None:
    job = cli.register()
    cli("claim")
    cli(*command, env=claimed_environment(job), code=2)
    assert cli("show", job, "--json").json["status"] == "running"


def test_a_handler_of_events_does_not_get_the_attempt_of_another_job(cli: Any) -> None:
    mine = cli.register()
    other = cli.register()
    for job in (mine, other):
        cli("claim", "--job", job)
    cli("publish", other, "progress", "--attempt", "1")
    handler = 'echo "$JOBDB_JOB_ID ${JOBDB_ATTEMPT-none}" > seen'
    cli(
        "subscribe",
        other,
        "-s",
        "me",
        "--exec",
        handler,
        "--idle-timeout-sec",
        "0.1",
        env=claimed_environment(mine),
        code=3,
    )
    assert (cli.folder / "seen").read_text() == f"{other} none\n"


def test_hints_of_an_exported_claim_use_it(cli: Any) -> None:
    cli.register()
    written = cli.run_in_terminal("claim", "--export", columns=200)
    assert "next: jobdb publish started" in written and "export JOBDB_JOB_ID=" in written


def test_a_ticket_names_the_job_whatever_the_environment_says(cli: Any) -> None:
    mine = cli.register()
    other = cli.register("--broker-host", "127.0.0.1", "--broker-port", "1")
    for job in (mine, other):
        cli("claim", "--job", job)
    cli("ticket", other, "--output", "t")
    env = claimed_environment(mine, 7)
    published = cli("publish", "--ticket", "t", "progress", "--no-deliver", "--json", env=env).json
    assert (published["job_id"], published["data"]["attempt"]) == (other, 1)
    for wrong in ((), (other, "progress"), ("progress", "--attempt", "1")):
        assert "a ticket determines" in cli("publish", "--ticket", "t", *wrong, env=env, code=2).err
    assert cli("show", mine, "--json").json["last_seq"] == 0
