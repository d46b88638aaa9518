"""Test the functions of the old module on the database, and the commands of the old script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobdb import AlreadyExists, DatabaseMissing, IllegalTransition, InvalidInput, Registry, UnknownJob
from jobdb.legacy import registry as old
from jobdb.legacy.registry_connections import open_registries


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of records in a workspace, with an empty database."""
    jobs = tmp_path / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    Registry.open(tmp_path / ".jobdb" / "jobs.db", create=True).close()
    yield jobs
    for key in list(open_registries):
        open_registries.pop(key).close()


BROKER = {"host": "mqtt.example", "port": 8883, "tls": True, "username": "a", "password": "hunter22"}


def test_a_job_has_the_legacy_fields(folder: Path) -> None:
    record = old.register_job(
        folder, {"agent": "codex", "prompt": "sort", "broker": BROKER, "role": "x"}, timeout_sec=60
    )
    assert list(record) == [
        "schema_version",
        "job_id",
        "status",
        "created_at",
        "updated_at",
        "prompt",
        "agent",
        "agent_session",
        "broker",
        "topic_prefix",
        "timeout_sec",
        "idle_timeout_sec",
        "expected_artifacts",
        "last_seq",
        "auth_token",
        "role",
    ]
    assert (record["status"], record["last_seq"], record["timeout_sec"]) == ("pending", 0, 60)
    assert record["broker"] == BROKER
    assert record["topic_prefix"] == f"python/mqtt/jobs/{record['job_id']}"
    assert len(record["auth_token"]) == 43
    assert old.load_job(folder, record["job_id"]) == record
    assert old.list_jobs(folder) == [record]


def test_a_job_runs_from_registration_to_its_end(folder: Path) -> None:
    first, second = (old.register_job(folder, agent="codex", prompt=text)["job_id"] for text in "ab")
    assert old.pick_pending(folder, agent="human") is None
    picked = old.pick_pending(folder, agent="codex")
    assert picked is not None
    assert (picked["job_id"], picked["status"]) == (first, "running")
    assert [old.next_seq(folder, first) for _ in range(3)] == [1, 2, 3]
    assert old.load_job(folder, first)["last_seq"] == 3
    assert old.update_status(folder, first, "completed")["status"] == "completed"
    assert old.update_status(folder, first, "completed")["status"] == "completed"
    with pytest.raises(IllegalTransition):
        old.update_status(folder, first, "running")
    assert old.update_status(folder, second, "running")["status"] == "running"
    assert old.update_status(folder, second, "pending")["status"] == "pending"
    assert old.update_status(folder, second, "cancelled")["status"] == "cancelled"
    assert [job["job_id"] for job in old.list_jobs(folder, status="completed")] == [first]
    assert old.list_jobs(folder, agent="human") == []
    assert old.pick_pending(folder) is None


def test_wrong_arguments_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        old.load_job(folder, "nobody")
    with pytest.raises(UnknownJob, match="nobody"):
        old.next_seq(folder, "nobody")
    with pytest.raises(InvalidInput, match="prompt"):
        old.register_job(folder, agent="codex")
    with pytest.raises(InvalidInput, match="broker"):
        old.register_job(folder, agent="codex", prompt="x", broker="localhost")
    job_id = old.register_job(folder, agent="codex", prompt="x")["job_id"]
    with pytest.raises(InvalidInput, match="paused"):
        old.update_status(folder, job_id, "paused")
    with pytest.raises(AlreadyExists):
        old.register_job(folder, agent="codex", prompt="x", job_id=job_id)
    with pytest.raises(DatabaseMissing, match="create=True"):
        old.list_jobs(tmp_path / "elsewhere" / ".mam" / "jobs")


def test_the_lock_excludes_old_scripts(folder: Path) -> None:
    import fcntl

    with old.registry_lock(folder):
        fd = os.open(folder / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        old.register_job(folder, agent="codex", prompt="inside")


def test_the_environment_takes_precedence_for_the_database(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old.database_url(folder) == f"sqlite:///{tmp_path}/.jobdb/jobs.db"
    monkeypatch.setenv("JOBDB_URL", "sqlite:////elsewhere.db")
    assert old.database_url(folder) == "sqlite:////elsewhere.db"


# A separate program: it has one thread, so the registry that it used is closed before it forks.
_PICKERS = """
import multiprocessing, sys
from pathlib import Path
from jobdb.legacy import registry as old

def pick_all(queue):
    found = []
    while (record := old.pick_pending(folder)) is not None:
        found.append(record["job_id"])
    queue.put(found)

folder = Path(sys.argv[1])
expected = [old.register_job(folder, agent="codex", prompt=str(n))["job_id"] for n in range(60)]
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
workers = [context.Process(target=pick_all, args=(queue,)) for _ in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
    assert worker.exitcode == 0, worker.exitcode
picked = [job_id for _ in workers for job_id in queue.get()]
assert sorted(picked) == sorted(expected), (picked, expected)
print("picked")
"""


def test_each_job_is_picked_once(folder: Path) -> None:
    """Forked on purpose: each child must open its own connection, not use its parent's."""
    ran = subprocess.run(
        [sys.executable, "-c", _PICKERS, str(folder)], capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.stdout == "picked\n", ran.stderr


def shell(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, *rest = arguments
    return subprocess.run(
        [sys.executable, "-m", "jobdb.legacy.registry", command, "--registry-dir", str(folder), *rest],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_commands_of_the_old_script(folder: Path) -> None:
    made = shell(folder, "register", "--prompt", "sort", "--agent", "codex", "--broker-host", "h", "--tls")
    assert made.returncode == 0, made.stderr
    job_id = made.stdout.strip()
    shown = json.loads(shell(folder, "show", job_id).stdout)
    assert (shown["prompt"], shown["broker"]["tls"]) == ("sort", True)
    assert "auth_token" not in shown
    listed = shell(folder, "list", "--status", "pending").stdout.splitlines()
    assert [json.loads(line)["job_id"] for line in listed] == [job_id]
    picked = json.loads(shell(folder, "pick", "--agent", "codex", "--with-secrets").stdout)
    assert len(picked["auth_token"]) == 43
    assert shell(folder, "pick").returncode == 1
    assert shell(folder, "status", job_id).stdout == "running\n"
    assert shell(folder, "status", job_id, "completed").stdout == "completed\n"
    refused = shell(folder, "status", job_id, "running")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert shell(folder, "show", "nobody").returncode == 2


def test_bad_fields_are_invalid_input(folder: Path) -> None:
    good = {"agent": "a", "prompt": "p"}
    for bad in (
        5, "ab", [1], {"prompt": None}, {"agent": None}, {"agent": 5}, {"expected_artifacts": "out.txt"},
        {"expected_artifacts": {"a": 1}}, {"timeout_sec": True}, {"timeout_sec": float("nan")}, {"broker": "host"},
        {"broker": {"host": 5}}, {"broker": {"host": "h", "port": "1883"}}, {"job_id": "a b"}, {"topic_prefix": 5},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            old.register_job(folder, {**good, **bad} if isinstance(bad, dict) else bad)
    assert old.list_jobs(folder) == []
