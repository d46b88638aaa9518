"""Test processes without descriptors, working folder, standard streams or signals, and disks with transient errors:
a clear error or none, nothing lost, and a registry that works again afterwards."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from jobdb import Registry, StorageFailed
from jobdb.engines.sqlite.error_translation import translate
from jobdb.engines.sqlite.migrations import migrate
from jobdb.engines.sqlite.shared_mark import set_shared

# -- the disk


class _FailingReadVFS(apsw.VFS):
    """SQLite's own file system layer, whose reads fail on request."""

    fails = False

    def __init__(self) -> None:
        super().__init__("flaky", "", True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _FailingReadFile(name, flags)


class _FailingReadFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        if _FailingReadVFS.fails:
            raise apsw.exception_for(apsw.SQLITE_IOERR_CORRUPTFS)
        return super().xRead(amount, offset)


@pytest.fixture
def failing_reads() -> Iterator[type[_FailingReadVFS]]:
    layer = _FailingReadVFS()
    yield _FailingReadVFS
    _FailingReadVFS.fails = False
    apsw.unregister_vfs("flaky")
    del layer


def test_a_transient_read_error_is_not_reported_as_damage(database: Path, failing_reads: type[_FailingReadVFS]) -> None:
    set_shared(database, True)
    with Registry.open(database) as registry:
        job = registry.register(agent="a", prompt="p")
        with Registry.open(database) as other:
            failing_reads.fails = True
            for verb in (lambda: other.get(job.job_id), lambda: other.publish(job.job_id, "progress")):
                with pytest.raises(StorageFailed) as failed:
                    verb()
                assert "could not be read" in str(failed.value) and "restore" not in str(failed.value)
            failing_reads.fails = False
            assert other.publish(job.job_id, "progress").seq == 1
        assert registry.get(job.job_id).last_seq == 1


def _each_code() -> list[int]:
    names = [name for name in dir(apsw) if name.startswith("SQLITE_") and name in apsw.mapping_extended_result_codes]
    codes = [getattr(apsw, name) for name in names]
    return [code for code in codes if code & 0xFF not in (apsw.SQLITE_OK, apsw.SQLITE_NOTICE, apsw.SQLITE_WARNING)]


@pytest.mark.parametrize("code", _each_code(), ids=lambda code: str(apsw.mapping_extended_result_codes[code]))
def test_every_extended_code_has_a_message_and_only_damage_is_called_damage(database: Path, code: int) -> None:
    name = apsw.mapping_extended_result_codes[code]
    text = str(translate(apsw.exception_for(code), database, 0.0))
    assert str(database) in text or str(database.parent) in text
    assert "restore" not in text and "damaged" not in text, f"{name}: the file is sound"


def test_damage_is_still_called_damage(database: Path) -> None:
    with open(database, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (os.path.getsize(database) - 4096))
    text = str(translate(apsw.exception_for(apsw.SQLITE_CORRUPT), database, 0.0))
    assert "damaged" in text and "doctor --full" in text


def test_an_error_at_close_is_typed_and_the_registry_is_closed(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.open(database)
    gate = registry.engine.store._gate._file  # type: ignore[attr-defined]
    real = gate.close

    def eio() -> None:
        real()
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(gate, "close", eio)
        with pytest.raises(StorageFailed, match="is closed, but the disk reported"):
            registry.close()
    registry.close()
    migrate(database)
    Registry.open(database).close()


# -- file descriptors

_USE_UP_DESCRIPTORS = """
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
answers = []
"""
_OUT_OF_DESCRIPTORS = f"""
import os, resource, sys
from jobdb import JobdbError, Registry
registry = Registry.open(sys.argv[1])
if sys.argv[2] == "used":
    registry.get("j0")
{_USE_UP_DESCRIPTORS}
for verb in (lambda: registry.claim(worker="w"), lambda: registry.get("j0"), lambda: registry.release("j0", attempt=1)):
    try:
        verb()
        answers.append("ok")
    except JobdbError as error:
        answers.append(str(error))
for fd in held: os.close(fd)
jobs = registry.jobs()
attempts = sum(job.attempt for job in jobs)
claim = registry.claim(worker="w")
registry.close()
import json; print(json.dumps([answers, attempts, claim is not None]))
"""


@pytest.mark.parametrize("before", ["fresh", "used"])
def test_out_of_file_descriptors_a_claim_is_answered_or_not_made(database: Path, before: str) -> None:
    with Registry.open(database) as registry:
        for number in range(3):
            registry.register(agent="a", prompt="p", job_id=f"j{number}")
    found = subprocess.run(
        [sys.executable, "-c", _OUT_OF_DESCRIPTORS, str(database), before],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    answers, attempts, goes_on = json.loads(found.stdout)
    assert (answers[0] == "ok") == (attempts == 1), f"claimed exactly where it was answered: {found.stdout}"
    assert all(answer == "ok" or "descriptor" in answer or "Too many open files" in answer for answer in answers[:2])
    assert goes_on, "the registry works on afterwards"
    if before == "used":
        assert answers[0] == "ok", "it opens no file"


_FEW_DESCRIPTORS = f"""
import os, resource, sys
from jobdb import JobdbError, Registry
with Registry.open(sys.argv[1]) as registry:
    registry.register(agent="a", prompt="p")
{_USE_UP_DESCRIPTORS}
for _ in range(24):
    try:
        with Registry.open(sys.argv[1]) as registry:
            registry.register(agent="a", prompt="p")
        answers.append("ok")
    except JobdbError as error:
        answers.append(str(error))
    os.close(held.pop())
import json; print(json.dumps(answers))
"""


def test_opening_with_too_few_file_descriptors_says_what_to_do(database: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", _FEW_DESCRIPTORS, str(database)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    answers = json.loads(found.stdout.splitlines()[-1])
    assert answers[-1] == "ok"
    assert [answer for answer in answers if answer != "ok" and "ulimit -n" not in answer] == []
    with Registry.open(database) as registry:
        assert len(registry.jobs()) == 1 + answers.count("ok")


# -- what the command inherits from its parent


def jobdb(database: Path, *arguments: str, before: str = "", **given: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process whose state ``before`` has changed."""
    start = "os.execv(sys.executable, [sys.executable, '-m', 'jobdb.cli'] + sys.argv[1:])"
    code = f"import os, signal, sys\n{before}\n{start}"
    command = [sys.executable, "-c", code, "--db", str(database), *arguments]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **given}
    return subprocess.run(command, text=True, timeout=60, check=False, **given)


@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_a_failing_handler_is_noticed_even_if_the_parent_ignored_sigchld(database: Path, before: str) -> None:
    with Registry.open(database) as registry:
        registry.register(agent="a", prompt="p", job_id="j1")
        registry.publish("j1", "started")
        registry.publish("j1", "completed")
    subscribe = ("subscribe", "j1", "--subscriber", "s", "--retries", "0", "--exec")
    failed = jobdb(database, *subscribe, "exit 7", before=before)
    assert failed.returncode == 1 and "exit code 7" in failed.stderr
    with Registry.open(database) as registry:
        assert [found.handled_seq for found in registry.subscriptions(job_id="j1")] == [0]
    assert jobdb(database, *subscribe, "exit 0", before=before).returncode == 0


def test_a_command_can_be_stopped_although_its_parent_blocked_signals(database: Path) -> None:
    Registry.open(database).close()
    code = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'jobdb.cli'] + sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "--db", str(database), "subscribe", "--all", "--subscriber", "s"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) != 0


def test_no_database_file_takes_the_descriptor_of_a_closed_standard_stream(database: Path) -> None:
    whole = jobdb(database, "register", "--agent", "a", "--job-id", "j1", "p")
    assert whole.returncode == 0, whole.stderr
    closing = "os.close(0); os.close(2)"
    assert jobdb(database, "show", "nothing", before=closing).returncode == 2
    assert jobdb(database, "claim", "--worker", "w", before=closing).returncode == 0
    code = (
        "import os, sys\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "from jobdb import Registry\n"
        "registry = Registry.open(sys.argv[1])\n"
        "registry.publish('j1', 'progress', attempt=1)\n"
        "names = [os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2) if os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "registry.close()\n"
        "os._exit(any('jobs.db' in name for name in names))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(database)], timeout=60).returncode == 0
    with Registry.open(database) as registry:
        assert registry.get("j1").last_seq == 1
        assert registry.engine.store.integrity(full=True) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("register", "--agent", "a", "p"), ("claim", "--worker", "w"), ("stats",), ("doctor",), ("reap",)],
    ids=lambda arguments: arguments[0],
)
def test_commands_work_in_a_removed_working_folder(database: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    database.parent.chmod(0o755)  # so that there is a reason for a warning
    with pytest.warns(UserWarning), Registry.open(database) as registry:
        registry.register(agent="a", prompt="p")
    gone = tmp_path / "gone"
    gone.mkdir()
    found = jobdb(database, *arguments, before=f"os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})")
    assert found.returncode == 0, found.stderr


def test_a_umask_that_removes_all_rights_leaves_the_files_to_their_owner(tmp_path: Path) -> None:
    database = tmp_path / "new" / "jobs.db"
    assert jobdb(database, "init", before="os.umask(0o777)").returncode == 0
    assert jobdb(database, "register", "--agent", "a", "p", before="os.umask(0o777)").returncode == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in database.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert database.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_size_limit_is_reported(database: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    found = jobdb(database, "register", "--agent", "a", "p" * 100_000, before=limited)
    assert found.returncode == 5 and "ulimit -f" in found.stderr
    with Registry.open(database) as registry:
        assert registry.jobs() == []


_FIRST_VERB = """
import os, resource, sys
from jobdb import Registry
from jobdb.errors import StorageFailed
registry = Registry.open(sys.argv[1])
payload = open(sys.argv[2]).read()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
verb = {
    "register": lambda: registry.register(agent="a", prompt="p", job_id="new"),
    "jobs": registry.jobs,
    "get": lambda: registry.get("j0"),
    "accept": lambda: registry.accept(payload, subscriber="s"),
    "publish": lambda: registry.publish("j0", "progress"),
    "subscribe": lambda: registry.subscribe("j0", subscriber="s"),
}[sys.argv[3]]
try:
    verb()
    outcome = "done"
except StorageFailed as error:
    outcome = "told" if "ulimit -n" in str(error) else str(error)
for fd in held:
    os.close(fd)
verb()
print(outcome)
"""


@pytest.mark.parametrize("verb", ["register", "jobs", "get", "accept", "publish", "subscribe"])
def test_a_first_verb_without_a_free_descriptor_raises_and_can_be_retried(tmp_path: Path, verb: str) -> None:
    path = tmp_path / "private" / "jobs.db"
    with Registry.open(path, create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="j0")
        (tmp_path / "payload").write_text(registry.publish("j0", "progress").payload)
    command = [sys.executable, "-c", _FIRST_VERB, str(path), str(tmp_path / "payload"), verb]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() in ("done", "told"), ran.stdout + ran.stderr
