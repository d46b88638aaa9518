"""Test the MQTT commands as processes: relay, ticket, publish --deliver and --ticket, subscribe --broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.keys import OTHER_MASTER_KEY
from tests.support.mqtt.brokers import Broker
from tests.support.mqtt.client import RawClient
from tests.support.waiting import TIMEOUT_SEC, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "JOBDB_URL": f"sqlite:///{tmp_path}/db/jobs.db",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobdb.cli", *words],
            capture_output=True, text=True, timeout=TIMEOUT_SEC, env=environment | more, cwd=tmp_path,
        )  # fmt: skip

    assert call("init").returncode == 0
    return call


@pytest.fixture
def start_process(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def call(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobdb.cli", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
        )  # fmt: skip
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate(timeout=TIMEOUT_SEC)


CLAIM = ("--attempt", "1")
"""The attempt that the worker names."""


@pytest.fixture
def job(run: Run, broker: Broker) -> str:
    made = run("register", "--agent", "codex", "sort", "--broker-host", "127.0.0.1", "--broker-port", str(broker.port))
    job_id = made.stdout.strip()
    assert run("claim", "--agent", "codex").returncode == 0
    return job_id


def _wait_until_it_says(process: subprocess.Popen[str], what: str) -> None:
    assert process.stderr is not None
    while what not in (line := process.stderr.readline()):
        assert line, f"it ended and did not say {what!r}"


def test_relay_runs_until_stopped(run: Run, start_process: Callable[..., subprocess.Popen[str]], job: str) -> None:
    relay = start_process("relay")
    for _ in range(3):
        assert run("publish", job, "progress", *CLAIM).returncode == 0
    wait_until(lambda: json.loads(run("stats", "--json").stdout)["outbox"] == 0)
    relay.send_signal(signal.SIGTERM)
    out, err = relay.communicate(timeout=TIMEOUT_SEC)
    assert relay.returncode == 0 and out == ""
    assert "delivered 3 events; 0 waiting" in err and "connected to the broker" in err


def test_relay_once_reports_what_is_left(run: Run, job: str, broker: Broker) -> None:
    broker.stop()
    run("publish", job, "progress", *CLAIM)
    done = run("relay", "--once", "--timeout-sec", "4")
    assert done.returncode == 3 and "not yet delivered: 1 event;" in done.stderr and "Connection refused" in done.stderr
    broker.start()
    done = run("relay", "--once", "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == {"delivered": 1, "waiting": 0}


def test_publish_delivers_at_once_and_leaves_the_rest_to_the_relay(run: Run, job: str, broker: Broker) -> None:
    with RawClient(broker.port, topics=("jobdb/#",)) as listener:
        run("publish", job, "started", *CLAIM)
        done = run("publish", job, "progress", *CLAIM, "--deliver", "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["seq"] == 2 and done.stderr == ""
        wait_until(lambda: len(listener.received) == 2)
        assert [json.loads(payload)["seq"] for _, payload, _ in listener.received] == [1, 2]
    broker.stop()
    done = run("publish", job, "progress", *CLAIM, "--deliver")
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert "1 event of job" in done.stderr and "'jobdb relay' delivers the rest" in done.stderr


def test_a_ticket_from_issue_to_the_jobs_end(
    run: Run, start_process: Callable[..., subprocess.Popen[str]], job: str, broker: Broker, tmp_path: Path
) -> None:
    done = run("ticket", job)
    path = tmp_path / done.stdout.strip()
    assert path.name == f"{job}.ticket" and path.stat().st_mode & 0o777 == 0o600
    token = run("token", "show", job).stdout.strip()
    assert token in path.read_text()
    watcher = start_process("subscribe", job, "--subscriber", "me", "--from-broker", "--timeout-sec", str(TIMEOUT_SEC))
    _wait_until_it_says(watcher, "subscribed to")
    elsewhere = {"JOBDB_URL": "sqlite:////nowhere/jobs.db", "JOBDB_KEY": OTHER_MASTER_KEY}
    for seq, event in enumerate(["started", "progress", "completed"], start=1):
        done = run("publish", "--ticket", str(path), event, "--detail", "far away", **elsewhere)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{seq}\n", "")
    out, err = watcher.communicate(timeout=TIMEOUT_SEC)
    assert watcher.returncode == 0, err
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["started", "progress", "completed"]
    assert json.loads(run("show", job, "--json").stdout)["status"] == "completed"
    assert token not in err + out
    done = run("publish", "--ticket", str(path), "progress", **elsewhere)
    assert done.returncode == 1 and "cannot follow" in done.stderr


def test_an_undelivered_ticket_event_is_kept_and_relayed_later(run: Run, job: str, broker: Broker) -> None:
    assert run("ticket", job, "-o", "t").returncode == 0
    broker.stop()
    done = run("publish", "--ticket", "t", "started")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "1 event of job" in done.stderr and "jobdb relay --ticket t" in done.stderr
    assert run("publish", "--ticket", "t", "progress", "--no-deliver").returncode == 0
    broker.start()
    done = run("relay", "--ticket", "t", "--once", "--json")
    assert json.loads(done.stdout) == {"delivered": 2, "waiting": 0}
    done = run("relay", "--ticket", "t", "--once", "--json", "--resend")
    assert json.loads(done.stdout) == {"delivered": 2, "waiting": 0}


def test_ticket_to_stdout_and_as_facts(run: Run, job: str) -> None:
    secret = run("ticket", job, "-o", "-").stdout
    assert json.loads(secret)["job_id"] == job
    facts = run("ticket", job, "--json", "-o", "t").stdout
    assert json.loads(facts)["attempt"] == 1 and json.loads(secret)["token"] not in facts


def test_subscribe_over_a_broker_reports_refusals(
    run: Run, start_process: Callable[..., subprocess.Popen[str]], job: str, broker: Broker
) -> None:
    watcher = start_process(
        "subscribe", "-s", "all", "--broker", f"127.0.0.1:{broker.port}", "--timeout-sec", str(TIMEOUT_SEC)
    )
    _wait_until_it_says(watcher, "subscribed to")
    assert watcher.stderr is not None and watcher.stdout is not None
    with RawClient(broker.port) as client:
        client.publish(f"jobdb/jobs/{job}/events", '{"schema_version":1,"secret":"hush"}')
        assert "refused: malformed" in watcher.stderr.readline()
    assert run("publish", job, "progress", *CLAIM, "--deliver").returncode == 0
    assert json.loads(watcher.stdout.readline())["seq"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("publish", "--ticket", "t", "JOB", "progress"),
        ("publish", "--ticket", "t", "progress", "--attempt", "1"),
        ("publish", "JOB"),
        ("publish", "--ticket", "missing", "progress"),
        ("relay", "--resend"),
        ("relay", "--timeout-sec", "1"),
        ("ticket", "nobody"),
        ("subscribe", "-s", "x", "--window", "5"),
        ("subscribe", "-s", "x", "--broker", "http://b"),
        ("subscribe", "JOB", "-s", "x", "--from-broker", "--topic", "a/#"),
    ],
)
def test_contradictory_options_are_refused(run: Run, job: str, words: tuple[str, ...]) -> None:
    done = run(*(job if word == "JOB" else word for word in words))
    assert done.returncode == 2 and done.stderr.startswith("jobdb: ") and "Traceback" not in done.stderr
