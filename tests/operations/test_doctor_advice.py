"""Test that the doctor's advice fits the finding: no restore for a missing permission, no reap for others' work."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from jobdb.doctor import diagnose
from jobdb.doctor.findings import DoctorReport, Finding, describe_error, fix_command_for
from jobdb.engines.sqlite.store import SqliteStore
from jobdb.errors import Busy, SchemaMismatch, StorageFailed
from jobdb.filesystem.placement import placement_for
from jobdb.urls import parse_url
from tests.support.paths import EXAMPLES, ROOT
from tests.support.requirements import require_root

SAMPLE = EXAMPLES / "legacy-registry"
NOBODY = 65534
pytestmark = pytest.mark.filterwarnings("ignore:the folder")


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="jobdb-advice-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Drop to the rights of an ordinary user if the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def bad(path: Path, check: str) -> Finding:
    (found,) = [one for one in diagnose(parse_url(path)).findings if one.check == check and one.level != "ok"]
    return found


def make(path: Path) -> Path:
    with Registry.open(path, create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="one")
    diagnose(parse_url(path))  # everything that it imports is in the database when the next process reads it
    return path


def test_every_check_that_finds_something_is_tested() -> None:
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if "doctor" in path.read_text("utf-8")]
    tested = "".join(path.read_text("utf-8") for path in tests)
    for module in (ROOT / "jobdb" / "doctor").glob("*.py"):
        for check in re.findall(r'report\.(?:warn|fail|fail_on)\(\s*"([^"]+)"', module.read_text("utf-8")):
            assert f'"{check}"' in tested, f"{check} ({module.name}) is found by no test"


def test_a_file_system_that_cannot_hold_a_database(shared_folder: Path) -> None:
    path = make(shared_folder / "jobs.db")
    refused = placement_for(str(shared_folder))._replace(journal=None, reason="it loses locks", advice="move it")
    report = diagnose(parse_url(path), placement_of=lambda _folder: refused)
    (found,) = [one for one in report.findings if one.check == "file system"]
    assert found.level == "fail" and "it loses locks" in found.message


def test_an_unreadable_file_of_this_user(shared_folder: Path) -> None:
    path = make(shared_folder / "jobs.db")
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    path.chmod(0)
    with unprivileged():
        found = bad(path, "file")
    assert "Permission denied" in found.message and found.fix_command == f"chmod u+rw {path}"


def test_an_unreadable_file_of_another_user(shared_folder: Path) -> None:
    require_root("giving a file to another user")
    path = make(shared_folder / "jobs.db")
    with unprivileged():
        found = bad(path, "file")
    assert "Permission denied" in found.message and found.fix_command == f"sudo -u root jobdb --db {path} doctor"


def test_a_folder_without_search_permission(shared_folder: Path) -> None:
    folder = shared_folder / "shut"
    path = make(folder / "jobs.db")
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0)
    with unprivileged():
        found = bad(path, "file")
    folder.chmod(0o700)
    assert "Permission denied" in found.message and found.fix_command == f"chmod u+rwx {folder}"


def test_a_failing_disk_does_not_cause_advice_to_restore(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(shared_folder / "jobs.db")

    def fail(_path: Path) -> None:
        raise StorageFailed("cannot read it") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("jobdb.engines.sqlite.file_kind.read_header", fail)
    found = bad(path, "file")
    assert "Input/output error" in found.message and found.fix_command is None


def test_a_folder_in_place_of_the_database(shared_folder: Path) -> None:
    found = bad(shared_folder, "file")
    assert "is a folder" in found.message and found.fix_command == f"jobdb --db {shared_folder / 'jobs.db'} doctor"


@pytest.mark.parametrize(
    ("error", "fix_command"),
    [
        (Busy("another writer holds it", waited_sec=1.0), "jobdb --db {} --busy-timeout 60 doctor"),
        (StorageFailed("the file may not be written"), None),
    ],
)
def test_a_check_that_could_not_run_reports_no_damage(
    shared_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, fix_command: str | None
) -> None:
    path = make(shared_folder / "jobs.db")

    def fail(_store: SqliteStore, **_options: Any) -> list[str]:
        raise error

    monkeypatch.setattr(SqliteStore, "integrity", fail)
    found = bad(path, "integrity")
    assert "damaged" not in found.message
    assert found.fix_command == (fix_command.format(path) if fix_command else None)


def test_advice_names_the_requested_registry() -> None:
    report = DoctorReport("postgresql://db.example/jobs", "jobdb --db postgresql://db.example/jobs")
    error = SchemaMismatch("it has schema version 1; run 'jobdb migrate' on the same URL")
    assert fix_command_for(report, error) == "jobdb --db postgresql://db.example/jobs migrate"
    assert fix_command_for(report, SchemaMismatch("it has not the schema; run 'jobdb doctor'")) is None


def test_the_command_is_taken_from_the_command_line_advice() -> None:
    report = DoctorReport("sqlite:///x.db", "jobdb --db x.db")
    error = SchemaMismatch("'jobdb list' found it empty", advice="open it with create=True", command="run 'jobdb init'")
    assert fix_command_for(report, error) == "jobdb --db x.db init"
    assert describe_error(error) == "'jobdb list' found it empty; run 'jobdb init'"


@pytest.mark.parametrize("expired", [False, True])
def test_advice_for_an_imported_job_is_to_inspect_it_before_reaping(shared_folder: Path, expired: bool) -> None:
    from jobdb.legacy import import_registry

    shutil.copytree(SAMPLE, shared_folder / "old")
    path = shared_folder / "jobs.db"
    with Registry.open(path, create=True) as registry:
        import_registry(registry, shared_folder / "old")
        if expired:
            registry.register(agent="a", prompt="p", job_id="leased")
            registry.claim(worker="w", job_id="leased", lease_sec=0.001)
    found = bad(path, "time limits")
    assert "imported" in found.message and found.fix_command == f"jobdb --db {path} list --status running"
    if expired:
        assert bad(path, "leases").fix_command == f"jobdb --db {path} list --status running"


def test_advice_for_a_job_registered_here_is_to_reap_it(shared_folder: Path) -> None:
    path = make(shared_folder / "jobs.db")
    with Registry.open(path) as registry:
        registry.claim(worker="w", job_id="one", lease_sec=0.001)
    assert bad(path, "leases").fix_command == f"jobdb --db {path} reap"


def test_a_wal_left_under_the_old_name_is_found(shared_folder: Path) -> None:
    path = shared_folder / "db" / "jobs.db"
    registry = Registry.open(path, create=True)
    registry.register(agent="a", prompt="p", job_id="one")
    registry.close(checkpoint=False)
    path.rename(path.with_name("new.db"))
    found = bad(path.with_name("new.db"), "left behind")
    assert found.level == "fail" and f"{path}-wal" in found.message
    assert found.fix_command is not None and subprocess.run(shlex.split(found.fix_command), check=True)
    with Registry.open(path) as registry:
        assert registry.get("one").agent == "a"
    assert all(finding.level == "ok" for finding in diagnose(parse_url(path)).findings)


def test_leftovers_of_a_removed_database(shared_folder: Path) -> None:
    path = shared_folder / "db" / "jobs.db"
    registry = Registry.open(path, create=True)
    registry.register(agent="a", prompt="p", job_id="one")
    path.unlink()
    found = bad(path, "file")
    assert f"process {os.getpid()} has the database open" in found.message
    assert found.fix_command == f"ls -l /proc/{os.getpid()}/fd"
    registry.close()
    found = bad(path, "file")
    assert f"{path}-wal" in found.message and found.fix_command == f"jobdb --db {path} restore BACKUP"
    path.touch()
    found = bad(path, "schema")
    assert f"{path}-wal" in found.message and found.fix_command == f"jobdb --db {path} restore BACKUP"


def test_no_mode_is_changed_through_a_link(shared_folder: Path) -> None:
    path = make(shared_folder / "db" / "jobs.db")
    Path(f"{path}-gate").unlink()
    others = shared_folder / "others"
    others.write_text("x")
    others.chmod(0o644)
    Path(f"{path}-gate").symlink_to(others)
    report = diagnose(parse_url(path))
    assert not [finding for finding in report.findings if finding.fix_command and "chmod" in finding.fix_command]
    assert "is a symbolic link" in bad(path, "open").message


def test_an_altered_secret_is_not_blamed_on_the_key(shared_folder: Path) -> None:
    import sqlite3

    path = make(shared_folder / "jobs.db")
    connection = sqlite3.connect(path)
    (sealed,) = connection.execute("SELECT sealed FROM tokens").fetchone()
    connection.execute("UPDATE tokens SET sealed = ?", [sealed[:-1] + bytes([sealed[-1] ^ 1])])
    connection.commit()
    connection.close()
    found = bad(path, "master key")
    assert "cannot be unsealed" in found.message and found.fix_command == f"jobdb --db {path} token rotate one"


def test_the_name_of_a_subscriber_is_quoted_for_the_shell(shared_folder: Path) -> None:
    path = make(shared_folder / "jobs.db")
    moment = [1_800_000_000_000]
    with Registry.open(path, clock=lambda: moment[0]) as registry:
        for number in range(2):
            event = registry.publish("one", "progress", detail=str(number))
            if number == 0:
                registry.accept(event.payload, subscriber="the one; that watches")
    report = diagnose(parse_url(path), clock=lambda: moment[0] + 3_600_000)
    (found,) = [one for one in report.findings if one.check == "subscribers"]
    assert found.fix_command is not None and "--subscriber 'the one; that watches'" in found.fix_command
