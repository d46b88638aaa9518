"""Test tries, delays and the time limits that can end a job: how they are set, and where they are shown."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from io import StringIO
from typing import Any

from jobdb.cli.watch_screen import View
from rich.console import Console, ConsoleDimensions

from jobdb import WorkBatch, WorkerInfo


def test_a_released_job_is_not_ready_before_its_delay(cli: Any) -> None:
    job = cli.register("--max-attempts", "3")
    cli("claim")
    cli("release", job, "--attempt", "1", "--delay", "3000", "--reason", "the model is overloaded")
    record = cli("show", job, "--json").json
    assert (record["status"], record["detail"], record["strikes"]) == ("pending", "the model is overloaded", 0)
    assert record["not_before"] > record["updated_at"]
    assert cli("claim", code=1).out == ""
    assert "is not due before" in cli("claim", "--job", job, code=1).err
    assert "ready: " in cli("show", job).out and "(in 4" in cli("show", job).out
    shown = cli.run_in_terminal("show", job)
    assert f"in 49m: jobdb claim --job {job}" in shown or f"in 50m: jobdb claim --job {job}" in shown
    assert "READY" in cli.run_in_terminal("list")
    view = View(ConsoleDimensions(100, 24))
    view.handle_keys("f")
    with cli.open_registry() as registry:
        view.refresh(registry)
    shown_view = StringIO()
    screen = Console(width=100, height=24, file=shown_view)
    screen.print(view.draw())
    assert re.search(f"{job}.* ready in 49m: the model is overloaded", shown_view.getvalue())
    for wrong in (("--delay", "-1"), ("--delay", "x"), ("--delay", "nan"), ("--delay", "inf")):
        cli("release", job, "--attempt", "1", *wrong, code=2)


def test_a_job_has_as_many_tries_as_it_was_registered_with(cli: Any) -> None:
    job = cli.register("--max-attempts", "2")
    assert cli("show", job, "--json").json["max_attempts"] == 2
    assert "tries: 0 of 2 used up\n" in cli("show", job).out
    cli("claim", "--lease-sec", "0.001")
    assert cli("claim", "--lease-sec", "0.001", "--json").json["strikes"] == 1, "claim returns what has expired"
    assert "tries: 1 of 2 used up\n" in cli("show", job).out
    assert "1/2" in cli.run_in_terminal("list") and "TRIES" in cli.run_in_terminal("list")
    assert cli("reap", "--strike-limit", "9").out.split("\t")[:2] == [job, "ended"], "its own number counts"
    for wrong in ("0", "-1", "x", "1000001"):
        cli("register", "-a", "a", "p", "--max-attempts", wrong, code=2)
    assert cli("show", cli.register(), "--json").json["max_attempts"] is None


def test_fail_is_final_even_with_tries_left(cli: Any) -> None:
    job = cli.register("--max-attempts", "5")
    cli("claim")
    cli("fail", job, "--attempt", "1")
    assert cli("show", job, "--json").json["status"] == "error"


def test_the_limits_shown_are_those_that_can_end_the_job(cli: Any) -> None:
    job = cli.register("--idle-timeout-sec", "60")
    assert "limits: 3600 s in all, 60 s without a sign of life\n" in cli("show", job).out
    cli("claim")
    assert "60 s without a sign of life (not under its live lease)\n" in cli("show", job).out
    unleased = cli.register("--idle-timeout-sec", "60")
    cli("claim", "--lease-sec", "0")
    assert "60 s without a sign of life\n" in cli("show", unleased).out
    cli("publish", unleased, "permission_required")
    assert "60 s without a sign of life (not while it waits for permission)\n" in cli("show", unleased).out


def test_jobs_are_registered_without_an_idle_limit(cli: Any) -> None:
    assert cli("show", cli.register(), "--json").json["idle_timeout_sec"] == 0


def test_stats_count_delayed_and_retried_jobs(cli: Any) -> None:
    lost = cli.register("--max-attempts", "3")
    cli("claim", "--lease-sec", "0.001")
    assert cli("claim").out.strip() == lost, "the lease has expired: the second try"
    cli.register()
    cli("claim")
    held = next(job["job_id"] for job in cli("list", "--status", "running", "--json").json_lines if not job["strikes"])
    cli("release", held, "--attempt", "1", "--delay", "600")
    stats = cli("stats", "--json").json
    assert (stats["delayed"], stats["retried"], stats["jobs"]["pending"]) == (1, 1, 1)
    assert {"delayed\t1", "retried\t1"} <= set(cli("stats").lines)
    assert "1 pending not ready yet, 1 with used-up tries" in cli.run_in_terminal("stats")
    assert "jobdb_delayed_jobs 1\n" in cli("stats", "--format", "prometheus").out


def test_watch_shows_the_workers_and_which_one_is_silent(cli: Any) -> None:
    worker = WorkerInfo(
        worker_id="w1", name="host1:4711", agent=None, host="host1", machine="m", boot_id="b", pid_namespace="n",
        pid=1, pid_started=1, slots=4, log_dir=None, lease_sec=60,
    )  # fmt: skip
    with cli.open_registry() as registry:
        registry.register(agent="codex", prompt="p")
        registry.add_worker(worker)
        registry.add_worker(replace(worker, worker_id="w2", name="host2:99", lease_sec=0.001))
        registry.work_batch(WorkBatch(worker_id="w1", worker="host1:4711", claim=1, heartbeat=True))
    time.sleep(0.01)
    drawn = cli("watch", "--once").out
    assert re.search(r"^host1:4711 1/4  host2:99 0/4 silent \d+s", drawn, re.MULTILINE), drawn


def test_a_list_of_all_columns_fits_80_columns(cli: Any) -> None:
    for number, agent in enumerate(("claude-code", "hermes-agent")):
        job = cli.register("--max-attempts", "12", agent=agent, prompt="a prompt of some length")
        cli("claim", "--job", job, "--lease-sec", "0.001")
        cli("claim", "--job", job)
        cli("publish", job, "permission_required", "--attempt", "2")
        if number:
            cli("release", job, "--attempt", "2", "--delay", "3000")
    written = cli.run_in_terminal("list", columns=80, env={"NO_COLOR": "1"})
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in written.splitlines()][:3]
    assert lines[0].split() == ["JOB", "STATUS", "AGENT", "LAST", "ATT", "TRIES", "LEASE", "READY", "PROMPT"]
    assert all("1/12" in line and "a prom" in line and len(line) <= 80 for line in lines[1:]), lines
    assert "AGE" in cli.run_in_terminal("list", columns=160)


def test_a_silent_job_under_a_live_lease_is_no_finding(cli: Any) -> None:
    def finding() -> Any:
        checks = cli("doctor", "--json").json["findings"]
        return next(check for check in checks if check["check"] == "time limits")

    cli.register("--idle-timeout-sec", "1")
    asking = cli.register("--idle-timeout-sec", "1")
    cli("claim", "--lease-sec", "600")
    cli("publish", asking, "permission_required")
    silent = cli.register("--idle-timeout-sec", "1", "--priority", "1")
    cli("claim", "--lease-sec", "0")
    time.sleep(1.1)
    assert "1 running job" in finding()["message"]
    assert [line.split("\t")[0] for line in cli("reap").lines] == [silent]
    assert finding()["level"] == "ok"
