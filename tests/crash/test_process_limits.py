"""What a process lacks (file descriptors, a working folder, standard streams, signals) or a disk reports for a moment:
a clear error or none, nothing lost, and the registry works on when it has passed."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from jobdb import JobdbError, Registry, StorageFailed
from jobdb.engines.sqlite.failures import translate
from jobdb.engines.sqlite.sharing import set_shared
from jobdb.migrations import migrate


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "private" / "jobs.db"
    path.parent.mkdir(mode=0o700)
    Registry.open(path, create=True).close()
    return path


# -- the disk


class _Flaky(apsw.VFS):
    """SQLite's own file system layer, whose reads fail while they are told to."""

    fails = False

    def __init__(self) -> None:
        super().__init__("flaky", "", True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _FlakyFile(name, flags)


class _FlakyFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        if _Flaky.fails:
            raise apsw.exception_for(apsw.SQLITE_IOERR_CORRUPTFS)
        return super().xRead(amount, offset)


@pytest.fixture
def flaky() -> Iterator[type[_Flaky]]:
    layer = _Flaky()
    yield _Flaky
    _Flaky.fails = False
    apsw.unregister_vfs("flaky")
    del layer


def test_a_read_that_fails_for_a_moment_is_no_damage(database: Path, flaky: type[_Flaky]) -> None:
    set_shared(database, True)
    with Registry.open(database) as registry:
        job = registry.register(agent="a", prompt="p")
        with Registry.open(database) as other:
            flaky.fails = True
            for verb in (lambda: other.get(job.job_id), lambda: other.publish(job.job_id, "progress")):
                with pytest.raises(StorageFailed) as failed:
                    verb()
                assert "could not be read" in str(failed.value) and "restore" not in str(failed.value)
            flaky.fails = False
            assert other.publish(job.job_id, "progress").seq == 1
        assert registry.get(job.job_id).last_seq == 1


def _each_code() -> list[int]:
    names = [name for name in dir(apsw) if name.startswith("SQLITE_") and name in apsw.mapping_extended_result_codes]
    codes = [getattr(apsw, name) for name in names]
    return [code for code in codes if code & 0xFF not in (apsw.SQLITE_OK, apsw.SQLITE_NOTICE, apsw.SQLITE_WARNING)]


@pytest.mark.parametrize("code", _each_code(), ids=lambda code: str(apsw.mapping_extended_result_codes[code]))
def test_every_extended_code_has_a_sentence_and_only_damage_is_called_damage(database: Path, code: int) -> None:
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


def test_a_close_that_reports_an_error_is_a_typed_one_and_ends(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.open(database)
    gate = registry.engine.store._gate._fd  # type: ignore[attr-defined]
    real = os.close

    def eio(fd: int) -> None:
        real(fd)
        if fd == gate:
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", eio)
        with pytest.raises(StorageFailed, match="is closed, and the disk reported"):
            registry.close()
    registry.close()
    migrate(database)
    Registry.open(database).close()


# -- file descriptors

_OUT_OF_DESCRIPTORS = """
import os, resource, sys
from jobdb import JobdbError, Registry
registry = Registry.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
answers = []
for verb in (lambda: registry.claim(worker="w"), lambda: registry.get("j0"), lambda: registry.release("j0", attempt=1)):
    try:
        verb()
        answers.append("ok")
    except JobdbError as error:
        answers.append(str(error))
for fd in held: os.close(fd)
jobs = {job.job_id: job for job in registry.jobs()}
running = sorted(name for name, job in jobs.items() if job.status == "running")
attempts = sum(job.attempt for job in jobs.values())
claim = registry.claim(worker="w")
registry.close()
print(answers, running, attempts, claim is not None)
"""


def test_out_of_file_descriptors_a_claim_is_answered_or_not_made(database: Path) -> None:
    with Registry.open(database) as registry:
        for number in range(3):
            registry.register(agent="a", prompt="p", job_id=f"j{number}")
    found = subprocess.run(
        [sys.executable, "-c", _OUT_OF_DESCRIPTORS, str(database)], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    answers, running, attempts, goes_on = eval(found.stdout)
    assert (answers[0] == "ok") == (attempts == 1), f"claimed exactly where it was answered: {found.stdout}"
    assert all(answer == "ok" or "descriptor" in answer or "Too many open files" in answer for answer in answers)
    assert goes_on, "the registry works on afterwards"
    assert running in ([], ["j0"])
