"""A worker that runs a command per job: what its end means, what it hears, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobdb import EventKind, JobStatus, Registry
from jobdb.work import CommandRunner, RunnerUnusable, Worker
from jobdb.work.transitions import Ended, Lost, Noted, Published, Returned, Started, Stopping
from tests.support.waiting import wait_until
from tests.support.workers import BackgroundWorker, is_running

StartWorker = Callable[..., BackgroundWorker]


@pytest.fixture(autouse=True)
def _runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_RUNTIME_DIR", str(tmp_path / "runtime"))


def register(registry: Registry, job_id: str, prompt: str = "sort", **options: Any) -> None:
    registry.register(agent="codex", prompt=prompt, job_id=job_id, **options)


def shell(script: str, folder: Path, **options: Any) -> CommandRunner:
    return CommandRunner(["/bin/sh", "-c", script], workdir=folder, **options)


def run_to_end(registry: Registry, runner: CommandRunner, **options: Any) -> BackgroundWorker:
    worker = BackgroundWorker(registry, runner, until_empty=True, **options)
    worker.join()
    return worker


def read_pids(path: Path) -> list[int]:
    wait_until(lambda: path.exists() and path.read_text("ascii").endswith("\n"))
    return [int(pid) for pid in path.read_text("ascii").split()]


# -- what it gets


def test_the_prompt_is_on_stdin_and_the_output_in_the_log(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job", "sort ten problems: é\n")
    run_to_end(registry, CommandRunner(["cat"], workdir=tmp_path, log_dir=tmp_path / "logs"))
    (attempt,) = registry.attempts("job")
    assert attempt.log is not None and Path(attempt.log).read_text("utf-8") == "sort ten problems: é\n"
    end = registry.events("job")[-1]
    assert (end.event, end.data["exit_code"]) == ("completed", 0) and end.data["duration_sec"] >= 0


def test_a_prompt_of_four_mebibytes_arrives(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job", "x" * (4 << 20))
    run_to_end(registry, shell("wc -c > size", tmp_path))
    assert int((tmp_path / "size").read_text("ascii")) == 4 << 20


def test_placeholders_are_replaced_once(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job", "the {attempt} of {job_id}")
    script = 'printf "%s\\n" "$@" > arguments; cat {prompt_file} >> arguments; cat >> arguments'
    argv = ["/bin/sh", "-c", script, "sh", "{prompt}", "{job_id}:{attempt}", "{}", "{other}"]
    run_to_end(registry, CommandRunner(argv, workdir=tmp_path))
    expected = "the {attempt} of {job_id}\njob:1\n{}\n{other}\nthe {attempt} of {job_id}"
    assert (tmp_path / "arguments").read_text("utf-8") == expected


def test_the_environment_tells_the_agent_of_its_job_and_no_secret(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "hidden")
    monkeypatch.setenv("KEPT", "yes")
    register(registry, "job")
    run_to_end(registry, shell('env -0 > environment; cp "$JOBDB_CONTEXT" context', tmp_path), name="host1:7")
    text = (tmp_path / "environment").read_text("utf-8")
    found = dict(line.split("=", 1) for line in text.rstrip("\0").split("\0"))
    assert (found["JOBDB_JOB_ID"], found["JOBDB_ATTEMPT"], found["JOBDB_WORKER"]) == ("job", "1", "host1:7")
    assert found["KEPT"] == "yes" and found["JOBDB_URL"].partition("://")[0] in ("sqlite", "postgresql")
    assert not {"JOBDB_KEY", "MQTT_PASSWORD"} & found.keys()
    context = json.loads((tmp_path / "context").read_text("utf-8"))
    assert (context["job"]["job_id"], context["attempt"], context["earlier_attempts"]) == ("job", 1, [])
    assert not list((tmp_path / "runtime").rglob("prompt"))


def test_a_prompt_too_long_for_an_argument_ends_the_job_with_advice(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job", "x" * 140_000, max_attempts=5)
    run_to_end(registry, CommandRunner(["echo", "{prompt}"], workdir=tmp_path))
    end = registry.events("job")[-1]
    assert end.event == "error" and "{prompt_file}" in end.detail
    assert registry.get("job").attempt == 1


# -- what its end means


def test_exit_codes_and_signals(registry: Registry, tmp_path: Path) -> None:
    for job_id, script in {"zero": "exit 0", "three": "echo the reason; exit 3", "killed": "kill -9 $$"}.items():
        register(registry, job_id, script)
    run_to_end(registry, shell('eval "$(cat)"', tmp_path))
    assert registry.get("zero").status is JobStatus.COMPLETED
    three, killed = registry.events("three")[-1], registry.events("killed")[-1]
    assert (three.event, three.data["exit_code"], three.data["tail"]) == ("error", 3, "the reason\n")
    assert three.detail == "the command ended with exit code 3"
    assert (killed.event, killed.data["signal"]) == ("error", "SIGKILL")


def test_exit_code_75_gives_the_job_back_for_later(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    register(registry, "job", max_attempts=1)
    worker = start_worker(shell("echo error overloaded > $JOBDB_EVENTS; exit 75", tmp_path))
    returned = worker.wait_for(Returned)
    assert (returned.reason, returned.delay_sec, returned.counts) == ("overloaded", 30.0, False)
    job = registry.get("job")
    assert (job.status, job.strikes, job.detail) == (JobStatus.PENDING, 0, "overloaded")


def test_a_failed_attempt_is_tried_again_and_knows_of_the_first(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job", max_attempts=2)
    script = 'cp "$JOBDB_CONTEXT" context; echo progress begun > $JOBDB_EVENTS; test $JOBDB_ATTEMPT = 2'
    worker = run_to_end(registry, shell(script, tmp_path, log_dir=tmp_path / "logs"))
    assert worker.of(Returned)[0].counts and registry.get("job").status is JobStatus.COMPLETED
    (earlier,) = json.loads((tmp_path / "context").read_text("utf-8"))["earlier_attempts"]
    assert (earlier["attempt"], earlier["last_event"]["detail"]) == (1, "begun")


def test_expected_files_decide(registry: Registry, tmp_path: Path) -> None:
    register(registry, "there", "echo sorted > there.txt", expected_artifacts=["there.txt"])
    register(registry, "missing", "true", expected_artifacts=["missing.txt"])
    run_to_end(registry, shell('eval "$(cat)"', tmp_path))
    end = registry.events("there")[-1]
    assert end.event == "completed" and end.data["artifacts"]["there.txt"]["bytes"] == 7
    assert len(end.data["artifacts"]["there.txt"]["sha256"]) == 64
    end = registry.events("missing")[-1]
    assert end.event == "error" and end.detail == "expected files are missing: missing.txt does not exist"
    assert end.data["missing"] == {"missing.txt": "does not exist"}


# -- what it hears


def test_lines_on_the_channel_become_events(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job")
    lines = [
        "progress step 1",
        '{"event": "progress", "detail": "step 2", "pct": 50, "data": {"file": "a"}}',
        "nonsense",
        "permission_required may I?",
        "completed all sorted",
    ]
    text = "\n".join(lines)
    worker = run_to_end(registry, shell(f"cat > $JOBDB_EVENTS <<'END'\n{text}\nEND", tmp_path))
    events = registry.events("job")
    assert [(event.event, event.detail) for event in events] == [
        ("progress", "step 1"),
        ("progress", "step 2"),
        ("permission_required", "may I?"),
        ("completed", "all sorted"),
    ]
    assert (events[1].data["pct"], events[1].data["file"]) == (50, "a")
    (noted,) = worker.of(Noted)
    assert "nonsense" in noted.text and len(worker.of(Published)) == 3


def test_ten_thousand_events_at_once_are_all_recorded(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job")
    script = 'i=0; while [ $i -lt 10000 ]; do echo "progress $i"; i=$((i+1)); done > $JOBDB_EVENTS'
    run_to_end(registry, shell(script, tmp_path))
    details = [event.detail for event in registry.all_events("job", page_size=10_000)]
    assert details == [*map(str, range(10_000)), ""]


def test_a_flood_of_invalid_lines_is_counted(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job")
    worker = run_to_end(registry, shell("yes | head -n 5000 > $JOBDB_EVENTS", tmp_path))
    notes = [noted.text for noted in worker.of(Noted)]
    assert len(notes) == 21 and notes[-1] == "5000 lines on the channel were invalid"
    assert registry.get("job").status is JobStatus.COMPLETED


# -- how it is stopped

STUBBORN = 'trap "" TERM; (trap "" TERM; sleep 600) & echo $$ $! > pids; wait'


def test_timeout_terminates_and_then_kills(registry: Registry, start_worker: StartWorker, tmp_path: Path) -> None:
    register(registry, "job", timeout_sec=1)
    worker = start_worker(shell(STUBBORN, tmp_path, grace_sec=0.2))
    pids = read_pids(tmp_path / "pids")
    ended = worker.wait_for(Ended)
    assert ended.detail == "timed out: running for more than 1 s" and ended.data["reason"] == "timeout"
    assert not any(map(is_running, pids))


def test_output_is_a_sign_of_life_and_silence_is_not(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    register(registry, "noisy", "while :; do echo x; sleep 0.3; done", idle_timeout_sec=2)
    register(registry, "silent", "sleep 600", idle_timeout_sec=1)
    question = "echo permission_required may I > $JOBDB_EVENTS; sleep 600"
    register(registry, "asking", question, idle_timeout_sec=1)
    worker = start_worker(shell('eval "$(cat)"', tmp_path))
    assert worker.wait_for(Ended).job_id == "silent"
    wait_until(lambda: registry.get("asking").last_event is EventKind.PERMISSION_REQUIRED)
    statuses = {registry.get(job_id).status for job_id in ("noisy", "asking")}
    assert statuses == {JobStatus.RUNNING} and len(worker.of(Ended)) == 1


def test_cancelling_reaches_the_whole_tree(registry: Registry, start_worker: StartWorker, tmp_path: Path) -> None:
    register(registry, "job")
    worker = start_worker(shell("setsid sleep 600 & echo $$ $! > pids; sleep 600", tmp_path, grace_sec=0.5))
    pids = read_pids(tmp_path / "pids")
    registry.cancel("job")
    worker.wait_for(Lost)
    assert not any(map(is_running, pids)) and worker.of(Stopping)[0].cause == "cancelled"


def test_drain_gives_back_what_does_not_end_in_time(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    register(registry, "job", max_attempts=1)
    # It ends with 0 when it is told to: nobody can know whether it has done its job.
    worker = start_worker(shell('trap "exit 0" TERM; sleep 600 & echo $$ > pids; wait', tmp_path), drain_sec=0)
    pids = read_pids(tmp_path / "pids")
    assert worker.drain().returned == 1
    job = registry.get("job")
    assert (job.status, job.strikes) == (JobStatus.PENDING, 0) and not any(map(is_running, pids))


def test_stop_kills_at_once(registry: Registry, start_worker: StartWorker, tmp_path: Path) -> None:
    register(registry, "job")
    worker = start_worker(shell(STUBBORN, tmp_path, grace_sec=300))
    pids = read_pids(tmp_path / "pids")
    worker.worker.drain()
    worker.worker.stop()
    assert worker.join().returned == 1 and not any(map(is_running, pids))


def test_a_killed_keeper_costs_one_try_and_leaves_no_process(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    register(registry, "job", max_attempts=2)
    script = "test $JOBDB_ATTEMPT = 2 && exit 0; echo $$ $PPID > pids; sleep 600"
    worker = start_worker(shell(script, tmp_path), until_empty=True)
    agent, keeper = read_pids(tmp_path / "pids")
    os.kill(keeper, signal.SIGKILL)
    worker.join()
    assert not is_running(agent)
    job = registry.get("job")
    assert (job.status, job.attempt, job.strikes) == (JobStatus.COMPLETED, 2, 1)


# -- before and after


def test_before_and_after_surround_the_command(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job")
    runner = shell("cat order; echo run >> order", tmp_path, before="echo before >> order", after="echo after >> order")
    run_to_end(registry, runner)
    assert (tmp_path / "order").read_text("ascii").split() == ["before", "run", "after"]


def test_a_failing_before_gives_the_job_back(registry: Registry, start_worker: StartWorker, tmp_path: Path) -> None:
    register(registry, "job", max_attempts=1)
    runner = shell("touch ran", tmp_path, before="echo no worktree; exit 4", after="touch cleaned")
    worker = start_worker(runner)
    returned = worker.wait_for(Returned)
    assert returned.reason == "--before failed with exit code 4: no worktree" and not returned.counts
    assert not (tmp_path / "ran").exists() and registry.get("job").status is JobStatus.PENDING


def test_a_failing_after_is_told_and_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    register(registry, "job")
    run_to_end(registry, shell("exit 0", tmp_path, after="exit 7"))
    end = registry.events("job")[-1]
    assert (end.event, end.data["exit_code"], end.data["after"]) == ("completed", 0, "exit code 7")


# -- what cannot run


@pytest.mark.parametrize(("mode", "exit_code"), [(None, 127), (0o644, 126)])
def test_a_command_that_cannot_run_is_refused_before_anything_is_claimed(
    registry: Registry, tmp_path: Path, mode: int | None, exit_code: int
) -> None:
    register(registry, "job")
    command = tmp_path / "agent"
    if mode is not None:
        command.write_text("#!/bin/sh\n", "ascii")
        command.chmod(mode)
    for runner in (CommandRunner([str(command)]), CommandRunner(["./agent"], workdir=tmp_path)):
        with pytest.raises(RunnerUnusable) as caught:
            Worker(registry, runner).run()
        assert caught.value.exit_code == exit_code
    assert registry.get("job").attempt == 0 and registry.workers() == []


def test_a_command_that_vanishes_ends_the_worker_and_no_job(
    registry: Registry, start_worker: StartWorker, tmp_path: Path
) -> None:
    command = tmp_path / "agent"
    command.write_text("#!/bin/sh\n", "ascii")
    command.chmod(0o755)
    worker = start_worker(CommandRunner([str(command)], workdir=tmp_path))
    register(registry, "first")
    worker.wait_for(Ended)
    command.unlink()
    register(registry, "second", max_attempts=1)
    summary = worker.join()
    assert (summary.exit_code, summary.returned) == (127, 1)
    job = registry.get("second")
    assert (job.status, job.strikes) == (JobStatus.PENDING, 0)


def test_no_log_folder_is_no_reason_not_to_work(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "ascii")
    register(registry, "job")
    worker = run_to_end(registry, shell("echo hello; exit 3", tmp_path, log_dir=tmp_path / "file" / "logs"))
    assert registry.events("job")[-1].data["tail"] == "hello\n"
    assert any("logs" in noted.text for noted in worker.of(Noted)) and len(worker.of(Started)) == 1
