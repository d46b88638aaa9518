"""Test the commands register, list, show, cancel and wait."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

HOSTILE = [
    "plain",
    " spaces around ",
    "two\nlines\ttab",
    "\x1b]0;title\x07\x1b[31mred\x1b[0m",
    "[bold]markup[/bold] :smile: {braces} %s",
    "'; DROP TABLE jobs; --",
    "ünïcödé 日本語 🎉 \u202e right-to-left",
    '{"json": [1, 2]}',
    "\\n literal \\x1b",
    "a\x85\u2028\u2029\ufeff",
]


def test_register_prints_only_the_id(cli: Any) -> None:
    done = cli("register", "--agent", "codex", "sort")
    assert done.out.count("\n") == 1 and done.err == ""
    assert cli("show", done.out.strip(), "--json").json["prompt"] == "sort"


def test_register_json_is_the_record_of_show(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret-of-the-broker\n")
    registered = cli(
        *("register", "--agent", "codex", "--json", "--job-id", "my-job", "--agent-session", "tmux:w"),
        *("--priority", "-5", "--topic-prefix", "a/b", "--timeout-sec", "60", "--idle-timeout-sec", "0"),
        *("--expect", "out/a.txt", "--expect", "b", "--extra", '{"reviewer":"Ü"}', "--broker-host", "mq.example"),
        *("--broker-tls", "--broker-username", "u", "--broker-password-file", tmp_path / "password", "do it"),
    )
    record = registered.json
    assert record == cli("show", "my-job", "--json").json == cli("list", "--json").json
    assert (
        record
        | {
            "job_id": "my-job",
            "status": "pending",
            "agent": "codex",
            "agent_session": "tmux:w",
            "prompt": "do it",
            "priority": -5,
            "topic_prefix": "a/b",
            "broker": {"host": "mq.example", "port": 8883, "tls": True, "username": "u", "has_password": True},
            "timeout_sec": 60,
            "idle_timeout_sec": 0,
            "expected_artifacts": ["out/a.txt", "b"],
            "extra": {"reviewer": "Ü"},
            "auth": "required",
            "last_seq": 0,
            "attempt": 0,
        }
        == record
    )
    assert "s3cret" not in registered.out + registered.err
    assert "Ü" in registered.out and ": " not in registered.out.replace("do it", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_prompt_is_stored_exactly_and_shown_sanitized(cli: Any, text: str) -> None:
    job = cli("register", "--agent", "a", "--prompt-file", "-", input=text).out.strip()
    assert cli("show", job, "--json").json["prompt"] == text
    for command in (("show", job), ("list",)):
        out = cli(*command).out
        assert not set("\x1b\x07\x85\u2028\u202e") & set(out)
    assert len(cli("list").lines) == 1


def test_prompts_from_an_argument_a_file_and_stdin(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "task.md").write_text("# Täsk\n")
    jobs = [
        cli("register", "--agent", "a", "# Täsk\n").out.strip(),
        cli("register", "--agent", "a", "--prompt-file", "task.md").out.strip(),
        cli("register", "--agent", "a", "-", input="# Täsk\n").out.strip(),
        cli("register", "--agent", "a", "--prompt-file", "-", input="# Täsk\n").out.strip(),
    ]
    assert {cli("show", job, "--json").json["prompt"] for job in jobs} == {"# Täsk\n"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--agent", "a"),
        ("--agent", "a", "p", "--prompt-file", "x"),
        ("--agent", "a", "--prompt-file", "missing.md"),
        ("--agent", "a", "--prompt-file", "."),
        ("--agent", "", "p"),
        ("--agent", "a" * 129, "p"),
        ("p",),
        ("--agent", "a", "--job-id", "../x", "p"),
        ("--agent", "a", "--job-id", "a b", "p"),
        ("--agent", "a", "--priority", "9999999", "p"),
        ("--agent", "a", "--priority", "1.5", "p"),
        ("--agent", "a", "--timeout-sec", "-1", "p"),
        ("--agent", "a", "--expect", "/etc/passwd", "p"),
        ("--agent", "a", "--expect", "a/../../b", "p"),
        ("--agent", "a", "--extra", "[1]", "p"),
        ("--agent", "a", "--extra", "{", "p"),
        ("--agent", "a", "--extra", '{"a":1,"a":2}', "p"),
        ("--agent", "a", "--extra", '{"a":NaN}', "p"),
        ("--agent", "a", "--extra", "@missing.json", "p"),
        ("--agent", "a", "--topic-prefix", "a/#", "p"),
        ("--agent", "a", "--auth", "maybe", "p"),
        ("--agent", "a", "--broker-port", "1883", "p"),
        ("--agent", "a", "--broker-host", "h", "--broker-port", "70000", "p"),
        ("--agent", "a", "--auth", "never", "--broker-host", "h", "--broker-tls", "p"),
        ("--agent", "a", "--nonsense", "p"),
        ("--agent", "a", "p", "q"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(cli: Any, arguments: tuple[str, ...]) -> None:
    done = cli("register", *arguments, code=2)
    assert done.out == "" and done.err
    assert cli("list").out == ""


def test_a_prompt_that_is_not_text_is_refused(cli: Any) -> None:
    assert "UTF-8" in cli("register", "--agent", "a", "-", input=b"caf\xe9", code=2).err
    assert "encoding" in cli("register", "--agent", "a", os.fsdecode(b"caf\xe9"), code=2).err
    assert "NUL" in cli("register", "--agent", "a", "-", input=b"a\0b", code=2).err


def test_a_prompt_of_ten_megabytes_is_refused_and_of_four_is_stored(cli: Any) -> None:
    done = cli("register", "--agent", "a", "-", input="x" * 10_000_000, code=2)
    assert "4194304" in done.err and len(done.err) < 1000
    assert cli("list").out == ""
    text = "ü" * 4_194_304
    job = cli("register", "--agent", "a", "-", input=text).out.strip()
    assert cli("show", job, "--json").json["prompt"] == text


def test_deeply_nested_json_is_refused(cli: Any) -> None:
    nested = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    done = cli("register", "--agent", "a", "--extra", "@-", "p", input=nested, code=2)
    assert len(done.err.splitlines()) == 1


def test_an_idempotency_key_returns_the_same_job(cli: Any) -> None:
    first = cli.register("--idempotency-key", "k")
    assert cli.register("--idempotency-key", "k") == first
    assert "k" in cli("register", "--agent", "codex", "--idempotency-key", "k", "something else", code=1).err
    assert len(cli("list").lines) == 1


def test_an_id_that_is_taken_is_refused(cli: Any) -> None:
    cli.register("--job-id", "mine")
    assert "mine" in cli("register", "--agent", "a", "--job-id", "mine", "p", code=1).err


def test_list_filters_pages_and_limits(cli: Any) -> None:
    with cli.open_registry() as registry:
        jobs = [registry.register(agent=("codex", "human")[n % 2], prompt=f"p{n}").job_id for n in range(6)]
        registry.cancel(jobs[0])
        registry.register(agent="codex", prompt="s", agent_session="tmux:1")
    newest_first = [line.split("\t")[0] for line in cli("list").lines]
    assert newest_first[1:] == jobs[::-1]
    assert len(cli("list", "--agent", "human").lines) == 3
    assert [one["job_id"] for one in cli("list", "--status", "cancelled", "--json").json_lines] == [jobs[0]]
    assert len(cli("list", "--status", "cancelled", "--status", "pending").lines) == 7
    assert len(cli("list", "--agent-session", "tmux:1").lines) == 1
    assert [line.split("\t")[0] for line in cli("list", "-n", "2", "--after", jobs[4]).lines] == [jobs[3], jobs[2]]
    assert "invalid status" in cli("list", "--status", "done", code=2).err
    cli("list", "--limit", "-1", code=2)
    cli("list", "--after", "nosuch", code=2)


def test_list_shows_all_of_many_when_asked(cli: Any) -> None:
    from jobdb import NewJob

    with cli.open_registry() as registry:
        registry.register_many(NewJob(agent="a", prompt=str(n), auth="never") for n in range(1203))
    assert len(cli("list").lines) == 100
    prompts = [line.split("\t")[7] for line in cli("list", "--limit", "0").lines]
    assert prompts == [str(n) for n in reversed(range(1203))]


def test_a_line_of_list_has_its_columns(cli: Any) -> None:
    job = cli.register("--broker-host", "h", agent="x y", prompt="first\nsecond")
    (fields,) = [line.split("\t") for line in cli("list").lines]
    assert fields[:3] == [job, "pending", "x y"] and fields[4:] == ["-", "0", "-", "first"]


def test_an_unknown_job_is_reported(cli: Any) -> None:
    for command in ("show", "events", "wait", "cancel", "complete", "fail"):
        assert "nosuch" in cli(command, "nosuch", code=2).err
    assert "invalid job id" in cli("show", "../../etc/passwd", code=2).err


def test_cancel_ends_a_job_once(cli: Any) -> None:
    job = cli.register()
    done = cli("cancel", job, "--reason", "not needed")
    assert done.out == ""
    assert cli("cancel", job, "--json").json["detail"] == "not needed"
    assert cli("publish", job, "progress", code=1).out == ""
    other = cli.register()
    cli("complete", other)
    assert "completed" in cli("cancel", other, code=1).err


FROM_OUTSIDE = {
    "MQTT_BROKER": "mq.example",
    "MQTT_TLS": "1",
    "MQTT_USERNAME": "agents",
    "MQTT_PASSWORD": "s3cret-of-the-environment",
}


def test_a_job_gets_the_broker_of_the_environment(cli: Any) -> None:
    """The broker is stored in the record, so that other processes need not have the same environment."""
    done = cli("register", "--agent", "a", "--json", "p", env=FROM_OUTSIDE)
    job = done.json
    assert job["broker"] == {
        "host": "mq.example", "port": 8883, "tls": True, "username": "agents", "has_password": True,
    }  # fmt: skip
    with cli.open_registry() as registry:
        assert registry.engine.broker(job["job_id"])[1] == FROM_OUTSIDE["MQTT_PASSWORD"]
    assert FROM_OUTSIDE["MQTT_PASSWORD"] not in done.out + done.err
    for path in cli.database.parent.iterdir():
        assert FROM_OUTSIDE["MQTT_PASSWORD"].encode() not in path.read_bytes()


def test_options_and_an_empty_variable_take_precedence_over_the_environment(cli: Any) -> None:
    def broker(*options: str, **more: str) -> Any:
        return cli("register", "--agent", "a", "--json", *options, "p", env=FROM_OUTSIDE | more).json["broker"]

    assert broker("--no-broker") is None
    assert broker(MQTT_BROKER="") is None
    assert broker("--broker-host", "other") == {
        "host": "other", "port": 1883, "tls": False, "username": None, "has_password": False,
    }  # fmt: skip
    wrong = cli("register", "--agent", "a", "p", env=FROM_OUTSIDE | {"MQTT_PORT": "none"}, code=2)
    assert "MQTT_PORT" in wrong.err
    cli("register", "--agent", "a", "p", "--no-broker", "--broker-host", "h", code=2)
    cli("register", "--agent", "a", "p", "--auth", "never", env={"MQTT_BROKER": "mq", "MQTT_TLS": "1"}, code=2)


def test_wait_exits_with_the_jobs_outcome(cli: Any) -> None:
    with cli.open_registry() as registry:
        jobs = [registry.register(agent="a", prompt="p").job_id for _ in range(4)]
        registry.complete(jobs[0])
        registry.fail(jobs[1], detail="broken")
        registry.cancel(jobs[2])
    assert cli("wait", jobs[0]).out == "completed\n"
    assert cli("wait", jobs[1], "--json", code=1).json["detail"] == "broken"
    assert cli("wait", jobs[2], code=6).out == "cancelled\n"
    waited = cli("wait", jobs[3], "--timeout-sec", "0.2", code=3)
    assert waited.out == "" and "still pending" in waited.err
    cli("wait", jobs[3], "--timeout-sec", "-1", code=2)


def test_wait_returns_when_the_job_ends(cli: Any) -> None:
    job = cli.register()
    waiting = cli.start("wait", job, "--timeout-sec", "60")
    time.sleep(0.5)
    assert waiting.poll() is None
    cli("complete", job)
    out, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, b"completed\n")


def test_wait_checks_artifacts_inside_the_folder(cli: Any, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    (work / "out" / "a.txt").write_text("a")
    (tmp_path / "secret").write_text("s")
    job = cli.register("--expect", "out/a.txt", "--expect", "b.txt")
    cli("complete", job)
    assert "'b.txt' does not exist" in cli("wait", job, "--check-artifacts", work, code=1).err
    (work / "b.txt").symlink_to("../secret")
    assert "leads out" in cli("wait", job, "--check-artifacts", work, code=1).err
    (work / "b.txt").unlink()
    (work / "b.txt").symlink_to("out/a.txt")
    assert cli("wait", job, "--check-artifacts", work).err == ""
    cli("wait", job, "--check-artifacts", tmp_path / "nowhere", code=2)


def test_only_a_regular_file_is_an_artifact(cli: Any, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "folder").mkdir(parents=True)
    os.mkfifo(work / "pipe")
    os.symlink("pipe", work / "link")
    os.symlink("/dev/null", work / "device")
    os.symlink("loop", work / "loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(work / "socket"))
        names = ("folder", "pipe", "link", "device", "loop", "socket", "folder/.", ".")
        job = cli.register(*(word for name in names for word in ("--expect", name)))
        cli("complete", job)
        stderr = cli("wait", job, "--check-artifacts", work, code=1).err
    faults = dict(re.findall(r"but '([^']+)' (.+?) \(looked in", stderr))
    assert faults.keys() == set(names), stderr
    assert {faults["pipe"], faults["link"], faults["socket"]} == {"is not a regular file"}
    assert {faults["folder"], faults["folder/."], faults["."]} == {"is a folder, not a file"}
    job = cli.register("--expect", "folder/", "--expect", "pipe/")
    cli("complete", job)
    assert "'folder/'" not in cli("wait", job, "--check-artifacts", work, code=1).err
    for outside in ("/etc/passwd", "../x", "a/../../x", ""):
        cli("register", "-a", "x", "p", "--expect", outside, code=2)


def test_an_empty_prompt_is_refused_from_every_source(cli: Any) -> None:
    (cli.folder / "empty").write_text(" \n\t\n")
    for given in ("", "\n", " \t\n", "\u200b", "\ufeff\n", "\u2800 \u3164", "\u202e\u00ad\x1b"):
        assert "is empty" in cli("register", "-a", "x", given, code=2).err
        stderr = cli("register", "-a", "x", "-", input=given, code=2).err
        assert "from stdin is empty" in stderr and "did the command before the pipe fail?" in stderr
        assert "is empty" in cli("register", "-a", "x", "--prompt-file", "-", input=given, code=2).err
    assert "'empty' is empty" in cli("register", "-a", "x", "--prompt-file", "empty", code=2).err
    assert cli("list").out == ""


def test_tables_on_a_terminal(cli: Any) -> None:
    job = cli.register(agent="codex", prompt="\x1b[31mred[/] \U0001f600 " + "long " * 60)
    cli("claim", "--job", job)
    cli("publish", job, "permission_required", "--attempt", "1", "--detail", "may I?")
    listed = cli.run_in_terminal("list", columns=80)
    assert all(heading in listed for heading in ("JOB", "STATUS", "AGE", "LAST", "ATT", "LEASE", "PROMPT"))
    assert job in listed and "asks" in listed
    assert "\x1b[33mrunning" in listed.replace("\x1b[0m", "") or "\x1b[33m" in listed
    assert "\x1b[31mred" not in listed
    plain = cli.run_in_terminal("list", columns=80, env={"NO_COLOR": "1"})
    assert "STATUS" in plain and "\x1b[3" not in plain
    assert max(cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in plain.splitlines()) <= 80
    shown = cli.run_in_terminal("show", job)
    assert "waits for permission" in shown and "may I?" in shown and "DETAIL" in shown
    assert "may I?" in cli.run_in_terminal("events", job)
    assert "register" in cli.run_in_terminal("list", "--agent", "nobody")
    assert json.loads(cli.run_in_terminal("show", job, "--json", env={"NO_COLOR": "1"}))["job_id"] == job


def test_a_dumb_terminal_gets_plain_lines(cli: Any) -> None:
    job = cli.register()
    assert cli.run_in_terminal("list", env={"TERM": "dumb"}).startswith(f"{job}\tpending\tcodex\t")
