"""Test the commands events, accept and subscribe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.requirements import require

COMMAND = (sys.executable, "-m", "jobdb.cli")


def publish_events(cli: Any, *events: str, **options: Any) -> tuple[str, list[str]]:
    """Register a job, publish events, and return its id and their wire payloads."""
    with cli.open_registry() as registry:
        job = registry.register(agent="a", prompt="p", **options).job_id
        return job, [registry.publish(job, event).payload for event in events]


def test_events_in_each_form(cli: Any) -> None:
    job, payloads = publish_events(cli, "started", "progress", "completed")
    assert [line.split("\t")[::2][:2] for line in cli("events", job).lines] == [
        ["1", "started"],
        ["2", "progress"],
        ["3", "completed"],
    ]
    records = cli("events", job, "--json").json_lines
    assert [record["seq"] for record in records] == [1, 2, 3]
    assert set(records[0]) == {"job_id", "seq", "event", "timestamp", "detail", "data", "attempt", "recorded_at"}
    assert cli("events", job, "--wire").lines == payloads
    assert cli("events", job, "--after", "2", "--wire").lines == payloads[2:]
    cli("events", job, "--wire", "--json", code=2)


def test_more_events_than_a_page(cli: Any) -> None:
    with cli.open_registry() as registry:
        from jobdb import EventKind, NewEvent

        job = registry.register(agent="a", prompt="p").job_id
        registry.publish_many(NewEvent(job_id=job, event=EventKind.PROGRESS) for _ in range(1003))
    seqs = [int(line.split("\t")[0]) for line in cli("events", job).lines]
    assert seqs == list(range(1, 1004))


def test_follow_shows_events_until_the_job_ends(cli: Any) -> None:
    job, _ = publish_events(cli, "started")
    following = cli.start("events", job, "--follow")
    assert following.stdout.readline().split(b"\t")[0] == b"1"
    cli("publish", job, "progress")
    assert following.stdout.readline().split(b"\t")[0] == b"2"
    assert following.poll() is None
    cli("complete", job)
    assert following.stdout.readline().split(b"\t")[0] == b"3"
    following.communicate(timeout=60)
    assert following.returncode == 0


def test_accept_prints_a_verdict_per_line(cli: Any) -> None:
    job, payloads = publish_events(cli, "started", "progress", "completed")
    lines = "\n".join(payloads) + "\n"
    first = cli("accept", "--subscriber", "s", "-", input=lines)
    assert [line.split("\t")[:3] for line in first.lines] == [["accepted", job, str(n)] for n in (1, 2, 3)]
    again = cli("accept", "--subscriber", "s", "--json", input=lines).json_lines
    assert [answer["verdict"] for answer in again] == ["duplicate"] * 3
    assert set(again[0]) == {"verdict", "job_id", "seq", "missing", "missing_count", "reason"}
    (cli.folder / "events.ndjson").write_text(lines)
    other = cli("accept", "--subscriber", "t", "events.ndjson")
    assert [line.split("\t")[0] for line in other.lines] == ["accepted"] * 3


def test_gaps_are_reported_and_late_events_need_a_window(cli: Any) -> None:
    _job, payloads = publish_events(cli, "started", "progress", "progress")
    (answer,) = cli("accept", "-s", "s", "--json", input=payloads[2]).json_lines
    assert (answer["verdict"], answer["missing"], answer["missing_count"]) == ("accepted", [1, 2], 2)
    assert cli("accept", "-s", "s", input=payloads[0], code=1).out.startswith("replayed\t")
    assert cli("accept", "-s", "s", "--window", "5", input=payloads[0]).out.startswith("accepted\t")
    assert cli("accept", "-s", "s", "--window", "5", input=payloads[0]).out.startswith("duplicate\t")
    assert "skipped seqs 1 to 2" in cli("accept", "-s", "plain", input=payloads[2]).out
    cli("accept", "-s", "s", "--window", "-1", input=payloads[0], code=2)


def test_a_subscriber_that_starts_now_accepts_nothing_old(cli: Any) -> None:
    job, payloads = publish_events(cli, "started")
    assert cli("accept", "-s", "s", "--start", "now", input=payloads[0], code=1).out.startswith("replayed")
    cli("accept", "-s", "s", "--start", "yesterday", input=payloads[0], code=2)
    new = cli("publish", job, "progress", "--json").out
    assert cli("accept", "-s", "s", input=new).out.startswith("accepted")


def test_the_topic_is_compared(cli: Any) -> None:
    _job, payloads = publish_events(cli, "started", topic_prefix="mine")
    assert cli("accept", "-s", "s", "--topic", "theirs/events", input=payloads[0], code=1).out.startswith("wrong_topic")
    assert cli("accept", "-s", "s", "--topic", "mine/events", input=payloads[0]).out.startswith("accepted")


def test_hostile_lines_get_verdicts_and_change_nothing(cli: Any) -> None:
    job, payloads = publish_events(cli, "started")
    forged = payloads[0].replace("started", "progress")
    lines = [
        b"\xff\xfe\x00binary",
        b"{" * 100_000,
        b"[" * 300_000 + b"]" * 300_000,
        b'"' + b"x" * 1_000_000 + b'"',
        b"null",
        b'{"job_id":"\x1b[31m"}',
        forged.encode(),
        json.dumps({**json.loads(payloads[0]), "job_id": "\u202enosuch"}).encode(),
        b"\r",
        b"   ",
    ]
    done = cli("accept", "-s", "s", "-", input=b"\n".join(lines), code=1)
    assert [line.split("\t")[0] for line in done.lines[:6]] == ["malformed"] * 6
    assert done.lines[6].split("\t")[:3] == ["bad_signature", job, "1"]
    assert len(done.lines) == 8 and not set("\x1b\u202e") & set(done.out)
    assert cli("accept", "-s", "s", "--json", input=b"\n".join(lines), code=1).json_lines[0]["job_id"] is None
    assert cli("accept", "-s", "s", input=payloads[0]).out.startswith("accepted")


def test_a_last_line_without_a_newline_and_windows_newlines(cli: Any) -> None:
    _job, payloads = publish_events(cli, "started", "progress")
    assert len(cli("accept", "-s", "s", input="\r\n".join(payloads)).lines) == 2


def test_accept_answers_while_its_input_is_open(cli: Any) -> None:
    _job, payloads = publish_events(cli, "started", "progress")
    streaming = cli.start("accept", "-s", "s", "-", stdin=subprocess.PIPE)
    for payload in payloads:
        streaming.stdin.write(payload.encode() + b"\n")
        streaming.stdin.flush()
        assert streaming.stdout.readline().startswith(b"accepted\t")
    streaming.communicate(timeout=60)
    assert streaming.returncode == 0


def test_accept_of_a_file_that_cannot_be_read(cli: Any) -> None:
    assert "missing" in cli("accept", "-s", "s", "missing", code=2).err
    cli("accept", "-s", "s", ".", code=2)
    cli("accept", "-", code=2)
    cli("accept", "-s", "", "-", code=2)


def test_subscribe_prints_each_event_once_and_ends_with_the_job(cli: Any) -> None:
    for end, code in (("completed", 0), ("error", 1)):
        job, payloads = publish_events(cli, "started", end)
        assert cli("subscribe", job, "-s", "s", code=code).lines == payloads
        assert cli("subscribe", job, "-s", "s", code=code).out == ""
        records = cli("subscribe", job, "-s", "t", "--json", code=code).json_lines
        assert [record["event"] for record in records] == ["started", end]
    job, _ = publish_events(cli, "started")
    cli("cancel", job)
    assert len(cli("subscribe", job, "-s", "s", code=6).lines) == 1


def test_subscribe_times_out(cli: Any) -> None:
    job, payloads = publish_events(cli, "started")
    assert cli("subscribe", job, "-s", "s", "--timeout-sec", "1.5", code=3).lines == payloads
    assert "without an event" in cli("subscribe", job, "-s", "s", "--idle-timeout-sec", "0.2", code=3).err
    assert cli("subscribe", "-s", "all", "--timeout-sec", "1.5", code=3).lines == payloads
    cli("subscribe", job, "-s", "s", "--timeout-sec", "-1", code=2)
    cli("subscribe", "nosuch", "-s", "s", code=2)


def test_the_handler_gets_each_event(cli: Any) -> None:
    job, payloads = publish_events(cli, "started", "completed")
    command = 'read -r line; printf "%s %s %s %s\\n" "$JOBDB_JOB_ID" "$JOBDB_SEQ" "$JOBDB_EVENT" "$line" >> seen'
    cli("subscribe", job, "-s", "s", "--exec", command)
    assert (cli.folder / "seen").read_text().splitlines() == [
        f"{job} 1 started {payloads[0]}",
        f"{job} 2 completed {payloads[1]}",
    ]
    cli("subscribe", job, "-s", "t", "--exec", "true", "--json", code=2)


def test_a_handler_gets_no_secret_of_the_environment(cli: Any) -> None:
    job = cli.register()
    cli("complete", job)
    given = {"MQTT_PASSWORD": "hush-mqtt", "PGPASSWORD": "hush-pg", "JOBDB_KEY_FILE": "/kept", "OURS": "kept"}
    environment = cli("subscribe", job, "-s", "s", "--exec", "env", env=given).out
    assert not [secret for secret in (cli.env["JOBDB_KEY"], "hush") if secret in environment]
    assert (
        "JOBDB_KEY_FILE=/kept" in environment
        and "OURS=kept" in environment
        and f"JOBDB_URL={cli.env['JOBDB_URL']}" in environment
    )


def test_a_failing_handler_is_retried_and_its_event_never_skipped(cli: Any) -> None:
    job, _ = publish_events(cli, "started", "completed")
    options = ("subscribe", job, "-s", "s", "--retries", "2", "--retry-pause-sec", "0.01", "--exec")
    failed = cli(*options, 'echo "$JOBDB_SEQ" >> tried; exit 3', code=1)
    assert (cli.folder / "tried").read_text() == "1\n1\n1\n"
    assert "stays unhandled" in failed.err and "exit code 3" in failed.err
    # It succeeds at the second try and continues with the next.
    cli(*options, 'echo "$JOBDB_SEQ" >> again; [ $(wc -l < again) -ge 2 ]')
    assert (cli.folder / "again").read_text() == "1\n1\n2\n"
    assert "not there" not in failed.err


def test_a_handler_that_is_killed_or_reads_nothing(cli: Any) -> None:
    job, _ = publish_events(cli, "completed")
    killed = cli("subscribe", job, "-s", "s", "--retries", "0", "--exec", "kill -9 $$", code=1)
    assert "signal 9" in killed.err
    cli("subscribe", job, "-s", "s", "--exec", "exec <&-; true")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_event_is_delivered_again_after_a_stop_in_its_handler(cli: Any, ending: signal.Signals) -> None:
    job, payloads = publish_events(cli, "started", "completed")
    running = cli.start("subscribe", job, "-s", "s", "--exec", "echo x >> begun; exec sleep 30", start_new_session=True)
    deadline = time.monotonic() + 60
    while not (cli.folder / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(running.pid, ending)
    _, err = running.communicate(timeout=60)
    assert running.returncode == (130 if ending is signal.SIGINT else -ending)
    assert b"Traceback" not in err
    assert cli("subscribe", job, "-s", "s").lines == payloads


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(cli: Any) -> None:
    with cli.open_registry() as registry:
        from jobdb import NewJob

        registry.register_many(NewJob(agent="a", prompt="x" * 500, auth="never") for _ in range(2000))
    listing = cli.start("list", "--limit", "0", "--json")
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.wait(timeout=60) == 141
    assert listing.stderr.read() == b""


@pytest.mark.parametrize(
    "arguments", [["list"], ["register", "--agent", "a", "x"], ["--version"], ["accept", "-s", "s"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_reported(cli: Any, arguments: list[str], unbuffered: str) -> None:
    require(Path("/dev/full").exists(), "there is no /dev/full here")
    cli.register()
    cli.env["PYTHONUNBUFFERED"] = unbuffered
    with open("/dev/full", "wb") as full:
        ended = cli.start(*arguments, stdout=full, stdin=subprocess.PIPE)
        _, err = ended.communicate(b"{}\n", timeout=60)
    assert ended.returncode == 5
    assert err.startswith(b"jobdb: stdout could not be written: No space left on device") and err.count(b"\n") == 1


@pytest.mark.parametrize(
    "arguments", [["list"], ["init"], ["backup", "kept.db"], ["doctor"], ["trust"], ["--db", "x", "list"]]
)
def test_a_removed_current_folder_is_reported(cli: Any, tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    environ = {name: value for name, value in cli.env.items() if name != "JOBDB_URL"}
    ended = subprocess.run(
        ["sh", "-c", 'rmdir "$0" && exec "$@"', str(folder), *COMMAND, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 5 and ended.stderr.startswith(b"jobdb: the current folder was removed; change to")


def test_an_interrupt_is_quiet(cli: Any) -> None:
    job, _ = publish_events(cli, "started")
    waiting = cli.start("events", job, "--follow")
    assert waiting.stdout.readline()  # from here on it waits
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, err) == (130, b"", b"")


def test_query_prints_json_for_numbers_that_json_lacks(cli: Any) -> None:
    cli("init")
    (row,) = cli("query", "SELECT 9e999 AS most, -9e999 AS least, 0.5 AS half, x'00ff' AS raw", "--json").json_lines
    assert row == {"most": "Infinity", "least": "-Infinity", "half": 0.5, "raw": "00ff"}
