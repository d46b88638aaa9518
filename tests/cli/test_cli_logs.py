"""Test the commands logs and workers: whose log, which part of it, and until when."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from jobdb.model import Claim, GiveBack, NewEvent, WorkBatch, WorkerInfo
from tests.support.documented import documented_fields

HOST = os.uname().nodename

pytestmark = pytest.mark.timeout(120)  # a line that does not come would be waited for


def worker(host: str = HOST, **changed: Any) -> WorkerInfo:
    facts: dict[str, Any] = {
        "worker_id": f"id-{host}", "name": f"{host}:1", "agent": None, "host": host, "machine": "", "boot_id": "",
        "pid_namespace": "", "pid": 1, "pid_started": 1, "slots": 4, "log_dir": None, "lease_sec": 60,
    }  # fmt: skip
    return WorkerInfo(**{**facts, **changed})


class Fleet:
    """Workers as the registry sees them; the test writes their logs."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.folder = folder / "logs"

    def claim(self, host: str = HOST, *, keeps_logs: bool = True, content: bytes | None = b"") -> Claim:
        """Claim the next job; create its log, unless ``content`` is None."""
        self.registry.add_worker(worker(host))
        batch = WorkBatch(
            worker_id=f"id-{host}", worker=f"{host}:1", claim=1, log_dir=str(self.folder) if keeps_logs else None
        )
        (claimed,) = self.registry.work_batch(batch).claims
        if keeps_logs and content is not None:
            self.log(claimed).parent.mkdir(parents=True, exist_ok=True)
            self.log(claimed).write_bytes(content)
        return claimed

    def log(self, claimed: Claim) -> Path:
        return self.folder / claimed.job_id / f"{claimed.attempt}.log"

    def give_back(self, claimed: Claim) -> None:
        back = GiveBack(job_id=claimed.job_id, attempt=claimed.attempt, reason="later")
        assert self.registry.work_batch(WorkBatch(worker_id=f"id-{HOST}", give_back=(back,))).refused == {}

    def complete(self, claimed: Claim) -> None:
        done = NewEvent(job_id=claimed.job_id, event="completed", attempt=claimed.attempt)
        assert self.registry.work_batch(WorkBatch(worker_id=f"id-{HOST}", events=(done,))).refused == {}


@pytest.fixture
def fleet(cli: Any) -> Iterator[Fleet]:
    with cli.open_registry() as registry:
        yield Fleet(registry, cli.folder)


@contextmanager
def following(cli: Any, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = cli.start("logs", *arguments, "--follow")
    yield process
    assert process.wait(timeout=60) == 0, process.stderr.read()


def line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def append(log: Path, content: bytes) -> None:
    with open(log, "ab") as file:
        file.write(content)


def test_the_last_attempt_is_shown_unless_another_is_asked_for(cli: Any, fleet: Fleet) -> None:
    job = cli.register()
    first = fleet.claim(content=b"one\n\x1b[31m\xff\r\n")
    fleet.give_back(first)
    fleet.claim(content=b"a\nb\nc\n")
    assert cli("logs", job).out == "a\nb\nc\n"
    assert cli("logs", job, "--lines", "2").out == "b\nc\n"
    assert cli("logs", job, "--lines", "0").out == ""
    assert cli("logs", env={"JOBDB_JOB_ID": job, "JOBDB_ATTEMPT": "1"}).out == "a\nb\nc\n"
    raw = subprocess.run(
        cli.start("logs", job, "--attempt", "1").args, env=cli.env, cwd=cli.folder, capture_output=True, check=True
    )
    assert raw.stdout == b"one\n\x1b[31m\xff\r\n"
    assert "give one of these: 1, 2" in cli("logs", job, "--attempt", "3", code=2).err


def test_the_beginning_is_shown_on_request(cli: Any, fleet: Fleet) -> None:
    job = cli.register()
    fleet.claim(content=b"".join(b"%d\n" % number for number in range(5000)))
    shown = cli("logs", job)
    assert shown.lines == [str(number) for number in range(4000, 5000)] and shown.err == ""
    assert len(cli("logs", job, "--all").lines) == 5000
    assert "give one of them" in cli("logs", job, "--all", "--lines", "3", code=2).err


def test_json_says_where_the_logs_are(cli: Any, fleet: Fleet) -> None:
    job = cli.register()
    first = fleet.claim(content=b"12345")
    fleet.give_back(first)
    fleet.claim("elsewhere", content=None)
    found = cli("logs", job, "--json").json_lines
    assert [(one["attempt"], one["host"], one["bytes"]) for one in found] == [(1, HOST, 5), (2, "elsewhere", None)]
    assert found[0]["log"] == str(fleet.log(first)) and found[0]["worker"] == f"{HOST}:1"
    assert cli("logs", job, "--attempt", "1", "--json").json_lines == found[:1]
    assert list(found[0]) == documented_fields("Attempt")
    assert "leave out --follow" in cli("logs", job, "--json", "--follow", code=2).err


def test_a_missing_log_is_explained(cli: Any, fleet: Fleet) -> None:
    job = cli.register()
    assert "no worker that keeps logs has run it" in cli("logs", job, code=1).err
    assert cli("logs", "nosuch", code=2).err
    assert cli("logs", code=2).err
    first = fleet.claim("elsewhere", content=None)
    assert f"is on host elsewhere, at {fleet.log(first)}; run 'jobdb logs {job} --attempt 1' there" in (
        cli("logs", job, code=1).err
    )
    cli("logs", job, "--follow", code=1)
    fleet.give_back(first)
    second = fleet.claim(keeps_logs=False)
    assert f"its worker {HOST}:1 on host {HOST} kept none" in cli("logs", job, code=1).err
    fleet.give_back(second)
    third = fleet.claim(content=None)
    assert "is not there yet, or is gone" in cli("logs", job, code=1).err
    fleet.complete(third)
    assert f"is gone: there is no file {fleet.log(third)}" in cli("logs", job, code=1).err
    assert "is gone" in cli("logs", job, "--follow", code=1).err
    fleet.log(third).mkdir(parents=True)
    assert "cannot be read: it is not a regular file" in cli("logs", job, code=5).err


def test_a_log_is_followed_until_its_job_has_ended(cli: Any, fleet: Fleet) -> None:
    job = cli.register()
    with following(cli, job) as process:
        claimed = fleet.claim(content=b"one\n")
        assert line(process) == b"one\n"
        append(fleet.log(claimed), b"two\n")
        assert line(process) == b"two\n"
        # The keeper has dropped the middle, and has put another file in its place.
        fleet.log(claimed).with_suffix(".new").write_bytes(
            b"one\n\n[jobdb: 6 bytes of output are missing here]\nfive\n"
        )
        os.replace(fleet.log(claimed).with_suffix(".new"), fleet.log(claimed))
        assert line(process) + line(process) == b"\n[jobdb: 2 bytes of output are missing here]\n"
        assert line(process) == b"five\n"
        append(fleet.log(claimed), b"last, without a line end")
        fleet.complete(claimed)
        assert line(process) == b"last, without a line end"


def test_a_log_is_followed_until_its_attempt_is_over(cli: Any, fleet: Fleet) -> None:
    job = cli.register()
    first = fleet.claim(content=b"zero\none\n")
    with following(cli, job, "--lines", "1") as process, following(cli, job, "--attempt", "2") as second:
        assert line(process) == b"one\n"
        append(fleet.log(first), b"two\n")
        assert line(process) == b"two\n"
        fleet.give_back(first)
        assert line(process) == b""
        again = fleet.claim(content=None)
        assert second.poll() is None
        fleet.log(again).write_bytes(b"three\n")
        assert line(second) == b"three\n"
        cli("cancel", job)
        assert line(second) == b""


def test_a_job_that_ends_without_a_log_is_not_waited_for(cli: Any, fleet: Fleet) -> None:
    job = cli.register()
    process = cli.start("logs", job, "--follow")
    cli("cancel", job)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and b"no worker that keeps logs has run it" in err


def test_workers_are_shown(cli: Any, fleet: Fleet) -> None:
    assert cli("workers").out == cli("workers", "--json").out == ""
    jobs = [cli.register(), cli.register()]
    first, second = fleet.claim(), fleet.claim()
    fleet.registry.add_worker(worker("far", agent="codex", slots=2))
    here, far = (each.split("\t") for each in cli("workers").lines)
    assert here[:5] == [f"{HOST}:1", HOST, "-", "2", "4"] and sorted(here[7].split(",")) == sorted(jobs)
    assert far[:5] == ["far:1", "far", "codex", "0", "2"] and far[7] == "-"
    started = datetime.strptime(here[5], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - started) < timedelta(hours=1)
    found = cli("workers", "--json").json_lines
    assert [one["name"] for one in found] == [f"{HOST}:1", "far:1"]
    assert list(found[0]) == documented_fields("Worker")
    assert {(one["job_id"], one["attempt"]) for one in found[0]["running"]} == {
        (first.job_id, first.attempt),
        (second.job_id, second.attempt),
    }
    shown = cli.run_in_terminal("workers", columns=160)
    assert "WORKER" in shown and "2/4" in shown and "codex" in shown and json.dumps(jobs[0])[1:-1] in shown


def test_the_terminal_says_that_there_are_no_workers(cli: Any) -> None:
    assert "no worker runs jobs of this registry" in cli.run_in_terminal("workers")


def test_the_output_of_a_command_is_followed_while_a_worker_runs_it(cli: Any) -> None:
    job = cli.register()
    release = cli.folder / "go on"
    with following(cli, job) as process:
        script = f'echo one; while [ ! -e "{release}" ]; do sleep 0.05; done; echo two >&2; printf last'
        running = cli.start("work", "--once", "--", "sh", "-c", script)
        assert line(process) == b"one\n"
        (shown,) = cli("workers", "--json").json_lines
        assert [one["job_id"] for one in shown["running"]] == [job]
        release.touch()
        assert (line(process), line(process), line(process)) == (b"two\n", b"last", b"")
        assert running.wait(timeout=60) == 0
    assert cli("logs", job, "--lines", "2").out == "two\nlast"
    assert cli("logs", job, "--json").json["bytes"] == len("one\ntwo\nlast")
    assert cli("workers").out == ""
