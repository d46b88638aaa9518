"""Test the folders of attempts: private, found by every worker of a user, and removed when nobody needs them."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobdb.errors import InvalidInput, StorageFailed
from jobdb.work import job_folder
from jobdb.work.job_folder import JobFolders, lock_path, runtime_folder

REGISTRY = "0123456789abcdef" * 2


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder for this test, which does not exist yet."""
    monkeypatch.setenv("JOBDB_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the places of runtime folders when none is given."""
    for name, value in (("_SESSIONS", tmp_path / "sessions"), ("_SHARED", tmp_path / "shared")):
        value.mkdir()
        monkeypatch.setattr(job_folder, name, str(value))
    return tmp_path


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_the_session_folder_is_used_while_there_is_one(places: Path) -> None:
    user = os.geteuid()
    assert runtime_folder({}) == f"{places}/shared/jobdb-{user}"
    (places / "sessions" / str(user)).mkdir(mode=0o700)
    assert runtime_folder({}) == f"{places}/sessions/{user}/jobdb"
    (places / "sessions" / str(user) / "jobdb").rmdir()
    (places / "sessions" / str(user)).rmdir()
    assert runtime_folder({}) == f"{places}/shared/jobdb-{user}"
    assert mode(runtime_folder({})) == 0o700


def test_the_session_folder_of_another_user_is_not_used(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    (places / "sessions" / str(real + 1)).mkdir(mode=0o700)  # it is ours, not that user's
    (places / "shared" / f"jobdb-{real + 1}").mkdir(mode=0o700)
    with pytest.raises(StorageFailed, match=rf"shared/jobdb-{real + 1} belongs to another user \(uid {real}\)"):
        runtime_folder({})


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_given_folder_is_created_private(runtime: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = Path(lock_path(REGISTRY, "job"))
    finally:
        os.umask(before)
    assert path.parent == runtime / REGISTRY and path.suffix == ".lock" and not path.exists()
    assert mode(runtime) == mode(path.parent) == 0o700


def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_RUNTIME_DIR", "here")
    with pytest.raises(InvalidInput, match="JOBDB_RUNTIME_DIR is 'here', a relative path"):
        runtime_folder()


@pytest.mark.parametrize("fault", ["link", "file", "open", "writable", "parent"])
def test_a_folder_that_is_not_private_is_refused(runtime: Path, tmp_path: Path, fault: str) -> None:
    if fault == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        runtime.symlink_to(tmp_path / "elsewhere")
        expected = "is a symbolic link"
    elif fault == "file":
        runtime.touch()
        expected = "is not a folder"
    elif fault == "open":  # readable, as systemd's RuntimeDirectory= is by default: allowed above, not for the jobs
        runtime.mkdir(mode=0o755)
        (runtime / REGISTRY).mkdir(mode=0o755)
        expected = rf"{REGISTRY} is open to other users \(mode 0755\)"
    elif fault == "writable":
        runtime.mkdir()
        runtime.chmod(0o777)
        expected = r"runtime is open to other users \(mode 0777\)"
    else:
        (tmp_path / "runtime").mkdir()
        (tmp_path / "runtime" / REGISTRY).touch()
        expected = "is not a folder"
    with pytest.raises(StorageFailed, match=expected) as caught:
        lock_path(REGISTRY, "job")
    assert "JOBDB_RUNTIME_DIR" in str(caught.value)


def test_a_readable_folder_may_be_above(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    assert mode(Path(lock_path(REGISTRY, "job")).parent) == 0o700


def test_every_job_has_a_lock_of_its_own(runtime: Path) -> None:
    jobs = ["a", "A", "a/b", "x" * 128, "x" * 127 + "y", "é\ud800", ""]
    paths = {lock_path(REGISTRY, job) for job in jobs} | {lock_path("other", job) for job in jobs}
    assert len(paths) == 2 * len(jobs)
    assert all(len(os.path.basename(path)) == 37 for path in paths)
    assert lock_path(REGISTRY, "a") == JobFolders(REGISTRY).lock_path("a")


def test_an_attempt_has_its_prompt_its_channel_and_its_context(runtime: Path) -> None:
    prompt = "é" * 4_194_304
    made = JobFolders(REGISTRY).create("j" * 128, 2, prompt=prompt, context='{"attempt": 2}')
    assert Path(made.prompt).read_text("utf-8") == prompt and Path(made.context).read_text() == '{"attempt": 2}'
    assert stat.S_ISFIFO(os.stat(made.events).st_mode)
    assert [mode(path) for path in (made.path, made.prompt, made.events, made.context)] == [0o700, *[0o600] * 3]
    again = JobFolders(REGISTRY).create("j" * 128, 2, prompt="new", context="{}")
    assert again.path == made.path and Path(again.prompt).read_text() == "new"
    again.remove()
    again.remove()
    assert os.listdir(Path(made.path).parent) == []


def test_a_folder_is_removed_with_what_the_agent_has_put_into_it(runtime: Path) -> None:
    made = JobFolders(REGISTRY).create("job", 1, prompt="", context="{}")
    os.unlink(made.prompt)
    Path(made.prompt, "inner").mkdir(parents=True)
    Path(made.path, "more").write_text("x")
    made.remove()
    assert not os.path.exists(made.path)


def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_RUNTIME_DIR", str(small_disk / "runtime"))
    folders = JobFolders(REGISTRY)
    with pytest.raises(StorageFailed, match=r"No space left on device; free space there, or set JOBDB_RUNTIME_DIR"):
        folders.create("job", 1, prompt="x" * 4_194_304, context="{}")
    assert os.listdir(small_disk / "runtime" / REGISTRY) == []
    folders.close()


def test_a_missing_runtime_folder_is_created_again(runtime: Path) -> None:
    """The session's folder disappears at logout, and a worker in a terminal multiplexer goes on."""
    folders = JobFolders(REGISTRY)
    folders.create("job", 1, prompt="", context="{}").remove()
    (runtime / REGISTRY).rmdir()
    runtime.rmdir()
    made = folders.create("job", 2, prompt="", context="{}")
    assert os.path.exists(made.prompt)
    made.remove()
    folders.close()


WORKER = f"""
import sys
from jobdb.work.job_folder import JobFolders
made = JobFolders({REGISTRY!r}).create(sys.argv[1], 1, prompt="do it", context="{{}}")
print("made", flush=True)
sys.stdin.read()
"""


def start_worker(job: str) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, job], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline() == b"made\n"
    return worker


def test_what_a_killed_worker_left_is_removed_when_its_jobs_processes_are_gone(runtime: Path) -> None:
    folders = JobFolders(REGISTRY)
    with start_worker("one") as one, start_worker("two") as two, start_worker("three") as three:
        lock = os.open(folders.lock_path("two"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert folders.remove_stale() == 0
        for worker in (one, two):
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        assert folders.remove_stale() == 1  # a process of the job "two" may be left: somebody holds its lock
        os.close(lock)
        assert folders.remove_stale() == 1
        kept = sorted(name for name in os.listdir(runtime / REGISTRY) if not name.endswith(".lock"))
        assert kept == [os.path.basename(folders.lock_path("three")).replace(".lock", "-1")]
        three.kill()
    assert folders.remove_stale() == 1


def test_the_registrys_folder_is_removed_with_the_last_worker(runtime: Path) -> None:
    one, other = JobFolders(REGISTRY), JobFolders(REGISTRY)
    for folders in (one, other):
        assert folders.remove_stale() == 0
    one.close()
    assert (runtime / REGISTRY).exists()
    made = other.create("job", 1, prompt="", context="{}")
    other.close()
    assert os.path.exists(made.prompt)
    made.remove()
    assert other.remove_stale() == 0
    other.close()
    assert not (runtime / REGISTRY).exists() and runtime.exists()


def test_lock_files_are_removed_when_they_are_free_and_old(runtime: Path) -> None:
    folders = JobFolders(REGISTRY)
    paths = [Path(folders.lock_path(job)) for job in ("fresh", "old", "held")]
    for path in paths:
        path.touch()
    (runtime / REGISTRY / "other.txt").touch()
    with open(paths[2]) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        folders.remove_stale()
        assert all(path.exists() for path in paths)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(job_folder, "LOCK_FILE_SEC", -60.0)
            paths[0].unlink()
            folders.remove_stale()
        assert [path.exists() for path in paths] == [False, False, True]
    assert (runtime / REGISTRY / "other.txt").exists()


def test_a_folder_is_not_taken_for_stale_while_it_is_made(runtime: Path) -> None:
    """One worker makes folders while another one starts over and over."""
    stop = threading.Event()

    def start_over() -> None:
        while not stop.is_set():
            other = JobFolders(REGISTRY)
            other.remove_stale()
            other.close()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(start_over)
        try:
            folders = JobFolders(REGISTRY)
            for attempt in range(100):
                made = folders.create("job", attempt, prompt="do it", context="{}")
                assert os.path.exists(made.prompt) and os.path.exists(made.events)
                made.remove()
                folders.close()
        finally:
            stop.set()
        ended.result()
    assert not (runtime / REGISTRY).exists()
