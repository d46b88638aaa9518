"""Test where a registry is found, and that only regular files are opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobdb.errors import InvalidInput
from jobdb.legacy.folder.layout import (
    classify,
    count_records,
    find_export_target,
    find_registry,
    list_audit_folder,
    list_jobs_folder,
    printable_name,
)
from jobdb.legacy.folder.regular_file import open_folder, read_regular_file
from jobdb.legacy.format.damage import Damaged, DamageKind
from jobdb.legacy.format.entry_kind import EntryKind


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"{}")
    return folder


@pytest.mark.parametrize("layout", [".mam", ".hermes"])
def test_a_registry_is_found_from_each_of_its_folders(tmp_path: Path, layout: str) -> None:
    jobs = make(tmp_path / layout / "jobs", "a.json")
    for given in (tmp_path, tmp_path / layout, jobs):
        found = find_registry(given)
        assert found.jobs == jobs
        assert found.audit == tmp_path / layout / "delegate_job_logs"


def test_an_empty_registry_is_a_registry(tmp_path: Path) -> None:
    make(tmp_path / ".mam" / "jobs")
    assert find_registry(tmp_path).jobs == tmp_path / ".mam" / "jobs"
    assert count_records(find_registry(tmp_path)) == 0


def test_a_copy_is_found_under_any_name(tmp_path: Path) -> None:
    copy = make(tmp_path / "copy of the jobs", "a.json")
    assert find_registry(copy).jobs == copy


def test_two_registries_in_one_place_are_refused(tmp_path: Path) -> None:
    make(tmp_path / ".mam" / "jobs", "a.json")
    make(tmp_path / ".hermes" / "jobs")
    assert find_registry(tmp_path).jobs.parent.name == ".mam"
    make(tmp_path / ".hermes" / "jobs", "b.json")
    with pytest.raises(InvalidInput, match=r"\.hermes"):
        find_registry(tmp_path)
    with pytest.raises(InvalidInput):
        find_export_target(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "file", "missing"])
def test_folders_that_are_not_a_registry(tmp_path: Path, name: str) -> None:
    make(tmp_path / "nothing", "notes.txt")
    make(tmp_path, "file")
    with pytest.raises(InvalidInput):
        find_registry(tmp_path / name)


def test_the_target_of_an_export(tmp_path: Path) -> None:
    assert find_export_target(tmp_path / "new").jobs == tmp_path / "new" / ".mam" / "jobs"
    assert find_export_target(tmp_path / "jobs").jobs == tmp_path / "jobs"
    assert find_export_target(make(tmp_path / "empty")).jobs == tmp_path / "empty" / ".mam" / "jobs"
    there = make(tmp_path / "old" / ".hermes" / "jobs", "a.json")
    assert find_export_target(tmp_path / "old").jobs == there
    make(tmp_path, "file")
    with pytest.raises(InvalidInput):
        find_export_target(tmp_path / "file")


def test_entries_are_classified_by_name() -> None:
    assert classify("a.b.json") is EntryKind.RECORD
    assert classify("a.events.log") is EntryKind.EVENT_LOG
    for name in (".a.json.tmp", "a.json.tmp", "a.json~", "a.tmp.4711"):
        assert classify(name) is EntryKind.LEFTOVER
    assert classify("README") is EntryKind.OTHER


def test_the_lock_is_not_an_entry(tmp_path: Path) -> None:
    jobs = make(tmp_path / "jobs", ".lock", "a.json", "a.events.log")
    found = find_registry(jobs)
    assert sorted(list_jobs_folder(found)) == ["a.events.log", "a.json"]
    assert list(list_audit_folder(found)) == []


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "good").write_bytes(b"content")
    (tmp_path / "link.json").symlink_to(tmp_path / "good")

    def kind(name: str) -> DamageKind | None:
        found = read_regular_file(str(tmp_path / name), 100)
        return found.kind if isinstance(found, Damaged) else None

    assert kind("folder.json") is DamageKind.NOT_A_FILE
    assert kind("pipe.json") is DamageKind.NOT_A_FILE
    assert kind("dangling.json") is DamageKind.DANGLING_LINK
    assert kind("loop.json") is DamageKind.LINK
    assert kind("link.json") is DamageKind.LINK
    assert read_regular_file(str(tmp_path / "missing.json"), 100) is None
    assert read_regular_file(str(tmp_path / "good" / "below"), 100) is None
    assert kind("good") is None
    (tmp_path / "large").write_bytes(b"x" * 101)
    assert kind("large") is DamageKind.TOO_LARGE


def test_only_the_named_folder_may_be_a_link(tmp_path: Path) -> None:
    """An agent that may write to a workspace must not redirect reads or writes to another registry."""
    make(tmp_path / "real" / ".mam" / "jobs", "a.json")
    (tmp_path / "named").symlink_to(tmp_path / "real")
    assert find_registry(tmp_path / "named").jobs == tmp_path / "named" / ".mam" / "jobs"
    (tmp_path / "records").symlink_to(tmp_path / "real" / ".mam" / "jobs")
    assert find_registry(tmp_path / "records").jobs == tmp_path / "records"
    for inside in (".mam", ".mam/jobs", ".hermes"):
        workspace = tmp_path / inside.replace("/", "_")
        (workspace / inside).parent.mkdir(parents=True)
        target = tmp_path / "real" / ".mam" / "jobs" if inside.endswith("jobs") else tmp_path / "real" / ".mam"
        (workspace / inside).symlink_to(target)
        for look in (find_registry, find_export_target):
            with pytest.raises(InvalidInput, match="is a link"):
                look(workspace)


def test_a_folder_is_opened_relative_to_an_open_one(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "logs")
    assert open_folder(str(tmp_path / "missing")) is None
    found = open_folder(str(tmp_path / "link"))
    assert isinstance(found, Damaged) and found.kind is DamageKind.LINK
    outer = open_folder(str(tmp_path))
    assert isinstance(outer, int)
    try:
        assert open_folder("link", dir_fd=outer) == found
        assert open_folder("missing", dir_fd=outer) is None
        inner = open_folder("logs", dir_fd=outer)
        assert isinstance(inner, int)
        try:
            assert read_regular_file("file", 9, dir_fd=inner) == b"x"
            assert open_folder("file", dir_fd=inner) is None
        finally:
            os.close(inner)
    finally:
        os.close(outer)


def test_names_are_shown_printable() -> None:
    assert printable_name("a.json") == "a.json"
    assert printable_name("日本.json") == "日本.json"
    assert printable_name(os.fsdecode(b"a\xff\n.json")) == "a\\\\xff\\n.json"
