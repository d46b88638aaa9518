"""Test which registry a database is, and whether it is in its place: files, machines, file systems, confirmation."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobdb import MovedOrCopied, Registry
from jobdb.engines import identity, place
from jobdb.engines.identity import (
    accept_place,
    assign_new_identity,
    broker_identity,
    read_identity,
    require_place,
)
from jobdb.engines.place import describe_difference

FILE = {"path": "/srv/a/jobs.db", "inode": "12", "machine": "m" * 32, "host": "north"}
TABLES = {"cluster": "7", "database": "5", "table": "16402"}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "original" / "jobs.db"
    with Registry.open(path, create=True) as registry:
        registry.register(agent="a", prompt="p")
    return path


@contextmanager
def sqlite3_connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file through Python's SQLite, while no registry has it open."""
    connection = sqlite3.connect(path)
    with connection:
        yield connection
    connection.close()


def copy_database(original: Path, name: str = "copy") -> Path:
    folder = original.parent.with_name(name)
    folder.mkdir(mode=0o700)
    return Path(shutil.copy2(original, folder / "jobs.db"))


# -- the facts


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {}, None),
        ({"inode": "13"}, {}, "another file"),
        ({"inode": "13"}, {"stable_inodes": False}, None),
        ({"machine": "n" * 32}, {}, "another machine"),
        ({"machine": "n" * 32, "host": "south"}, {"local_filesystem": False}, None),
        ({"machine": "", "host": ""}, {}, None),
        ({"host": "south"}, {}, "host north"),
        ({"path": "/srv/b/jobs.db"}, {}, None),
        ({"path": "/srv/b/jobs.db"}, {"is_another_file": lambda path: path == "/srv/a/jobs.db"}, "there as well"),
    ],
)
def test_a_file_is_identified_by_facts_that_survive_a_restart(
    change: dict[str, str], options: dict[str, object], message: str | None
) -> None:
    given = {"stable_inodes": True, "local_filesystem": True, "is_another_file": lambda path: False, **options}
    found = describe_difference(FILE, {**FILE, **change}, **given)  # type: ignore[arg-type]
    assert found == message or (message is not None and message in (found or ""))


@pytest.mark.parametrize("name", ["cluster", "database", "table"])
def test_tables_are_identified_by_the_servers_numbers(name: str) -> None:
    def differing(value: str) -> str | None:
        here = {**TABLES, name: value}
        return describe_difference(
            TABLES, here, stable_inodes=True, local_filesystem=True, is_another_file=lambda path: True
        )

    assert differing("99") is not None
    assert differing("") is None and differing(TABLES[name]) is None


def test_the_facts_of_this_machine_are_stable_and_not_secret() -> None:
    facts = place.file_place(Path(__file__))
    assert facts == place.file_place(Path(__file__))
    machine = Path("/etc/machine-id")
    if machine.exists() and machine.read_text().strip():
        assert machine.read_text().strip() not in json.dumps(facts)


# -- files


def test_a_new_database_has_an_id_and_a_recorded_place(original: Path) -> None:
    with Registry.open(original) as registry:
        found = read_identity(registry.engine.store)
        assert len(found.registry_id) == 32 and found.problem is None and found.recorded == found.current
        assert require_place(registry.engine.store) == found.registry_id


def test_a_copied_file_is_refused_with_both_remedies_and_works_locally(original: Path) -> None:
    with Registry.open(copy_database(original)) as registry:
        with pytest.raises(MovedOrCopied, match=r"identity --moved.*identity --copy"):
            require_place(registry.engine.store)
        job = registry.register(agent="a", prompt="p")
        registry.publish(job.job_id, "started")


@pytest.mark.parametrize("original_stays", [True, False])
def test_a_copy_becomes_another_registry(original: Path, original_stays: bool) -> None:
    copy = copy_database(original)
    with Registry.open(original) as registry:
        before = require_place(registry.engine.store)
    with Registry.open(copy) as registry:
        registry.engine.acquire_lease("relay", holder="the original's", lease_ms=60_000)
        mine = assign_new_identity(registry.engine.store)
        assert mine.registry_id != before and mine.problem is None
        assert require_place(registry.engine.store) == mine.registry_id
        assert registry.engine.acquire_lease("relay", holder="mine", lease_ms=60_000)
    if original_stays:
        with Registry.open(original) as registry:
            assert require_place(registry.engine.store) == before


def test_a_moved_database_keeps_its_identity(original: Path) -> None:
    copy = copy_database(original)
    with Registry.open(original) as registry:
        before = require_place(registry.engine.store)
    shutil.rmtree(original.parent)
    with Registry.open(copy) as registry:
        with pytest.raises(MovedOrCopied):
            require_place(registry.engine.store)
        assert accept_place(registry.engine.store).registry_id == before
        assert require_place(registry.engine.store) == before


def test_a_renamed_file_is_the_same_registry_and_its_old_name_is_free(original: Path) -> None:
    with Registry.open(original) as registry:
        before = require_place(registry.engine.store)
    moved = original.with_name("renamed.db")
    os.rename(original, moved)
    for suffix in ("-wal", "-shm"):
        if os.path.exists(f"{original}{suffix}"):
            os.rename(f"{original}{suffix}", f"{moved}{suffix}")
    with Registry.open(moved) as registry:
        assert require_place(registry.engine.store) == before
    with Registry.open(original, create=True) as registry:
        assert require_place(registry.engine.store) != before
    with Registry.open(moved) as registry:
        assert require_place(registry.engine.store) == before


def test_a_snapshot_with_the_same_inode_is_detected_by_the_original_file(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_database(original)
    inode = str(original.stat().st_ino)
    real = place.file_place
    monkeypatch.setattr(identity, "file_place", lambda path: {**real(path), "inode": inode})
    with Registry.open(copy) as registry, pytest.raises(MovedOrCopied, match="there as well"):
        require_place(registry.engine.store)


def test_a_cloned_machine_is_another_place(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_in_container", lambda: False)
    monkeypatch.setattr(place, "_machine_digest", lambda: "a" * 32)
    with Registry.open(original) as registry:
        accept_place(registry.engine.store)
        require_place(registry.engine.store)
        monkeypatch.setattr(place, "_machine_digest", lambda: "b" * 32)
        with pytest.raises(MovedOrCopied, match="another machine"):
            require_place(registry.engine.store)


def test_hosts_that_share_a_database_are_one_place(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobdb.engines.sqlite.shared_mark import set_shared

    set_shared(original, True)
    monkeypatch.setattr(place, "_in_container", lambda: False)
    for machine in "ab":
        monkeypatch.setattr(place, "_machine_digest", lambda machine=machine: machine * 32)
        with Registry.open(original) as registry:
            if machine == "a":
                accept_place(registry.engine.store)
            require_place(registry.engine.store)


@pytest.mark.parametrize("place", ["", "not JSON", "[]", None])
def test_an_unrecorded_place_is_recorded_at_the_first_connection(original: Path, place: str | None) -> None:
    with sqlite3_connection(original) as connection:
        connection.execute("DELETE FROM settings WHERE name = 'place'")
        if place is not None:
            connection.execute("INSERT INTO settings VALUES ('place', ?)", (place,))
    with Registry.open(original) as registry:
        require_place(registry.engine.store)
        assert read_identity(registry.engine.store).recorded


def test_a_lost_id_is_generated_again_once(original: Path) -> None:
    with sqlite3_connection(original) as connection:
        connection.execute("DELETE FROM settings WHERE name = 'registry_id'")
    with Registry.open(original) as registry:
        store = registry.engine.store
        assert read_identity(store).registry_id == read_identity(store).registry_id == broker_identity(store)


def test_the_older_broker_identity_is_kept_until_the_id_changes(original: Path) -> None:
    with Registry.open(original) as registry:
        store = registry.engine.store
        registry.engine.put_setting("broker_identity", f"{broker_identity(store)} 0123456789abcdef")
        assert broker_identity(store) == "0123456789abcdef"
        # A restored backup: a new id replaces the one in the backup.
        registry.engine.put_setting("registry_id", identity.new_registry_id())
        assert broker_identity(store) == read_identity(store).registry_id
        registry.engine.put_setting("broker_identity", f"{broker_identity(store)} 0123456789abcdef")
        assert broker_identity(store) != assign_new_identity(store).registry_id != "0123456789abcdef"


def test_the_doctor_reports_a_copy(original: Path) -> None:
    from jobdb.doctor import diagnose
    from jobdb.urls import parse_url

    def found(path: Path) -> tuple[str, str | None]:
        report = diagnose(parse_url(str(path)))
        [finding] = [each for each in report.findings if each.check == "identity"]
        return finding.level, finding.fix_command

    assert found(original) == ("ok", None)
    level, fix_command = found(copy_database(original))
    assert level == "warn" and (fix_command or "").endswith("identity --copy")
