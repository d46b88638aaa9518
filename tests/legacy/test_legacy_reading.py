"""Test the reading processes: they yield what reading here yields, and end with the import, however it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobdb import Registry, Unusable
from jobdb.legacy import Outcome, import_registry
from jobdb.legacy.folder.layout import find_registry
from jobdb.legacy.importing import readers
from jobdb.legacy.importing.normalized_job import DeferredJob
from tests.support.legacy_registry import registry_contents, snapshot

Open = Callable[..., Registry]


def test_reading_here_and_in_a_process_yield_the_same(sample: Path) -> None:
    layout = find_registry(sample)
    log = sorted(layout.jobs.glob("*.events.log"))[0]
    log.write_bytes(log.read_bytes() * 2 + b'{"cut')
    (layout.jobs / "folder.json").mkdir()
    names = [path.name for path in layout.jobs.glob("*.json")] + ["gone.json", os.fsdecode(b"\xff.json")]
    here = readers.Reader(layout)
    with readers.ReaderPool(layout, 2) as there:
        for defer_pending in (False, True):
            expected = list(here.read(names, defer_pending=defer_pending))
            assert list(there.read(names, defer_pending=defer_pending)) == expected
            assert list(there.read(names[:3], defer_pending=defer_pending)) == expected[:3]
            assert len(expected) == len(names)
            assert any(isinstance(answer, DeferredJob) for _, answer in expected) is defer_pending


def test_large_files_are_sent_in_several_answers(tmp_path: Path, make_legacy: Callable[..., Path]) -> None:
    jobs = make_legacy(tmp_path / "w", jobs=6, damaged=0)
    for path in jobs.glob("*.events.log"):
        path.write_bytes(path.read_bytes() + b"x" * 3_000_000 + b"\n")
    layout = find_registry(tmp_path / "w")
    names = [path.name for path in sorted(jobs.glob("*.json"))]
    with readers.ReaderPool(layout, 2) as process:
        assert list(process.read(names)) == list(readers.Reader(layout).read(names))


def test_an_import_through_a_second_process(sample: Path, open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = open_database("here.db"), open_database("there.db")
    first = import_registry(here, sample)
    monkeypatch.setattr(readers, "MIN_RECORDS_FOR_PROCESS", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    before = snapshot(sample)
    second = import_registry(there, sample)
    assert first.as_dict() == second.as_dict()
    assert registry_contents(here) == registry_contents(there)
    assert snapshot(sample) == before
    assert import_registry(there, sample).counts[Outcome.UNCHANGED] == 200


def test_modules_in_the_workspace_are_not_run(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may write any file to the workspace in which the import, which has the key, is started."""
    layout = find_registry(sample)
    names = [path.name for path in layout.jobs.glob("*.json")]
    expected = list(readers.Reader(layout).read(names))
    mark = tmp_path / "run"
    program = f"open({str(mark)!r}, 'a').write(__name__)\nraise SystemExit\n"
    for name in ("json", "struct", "hashlib", "subprocess", "signal", "sitecustomize", "usercustomize", "apsw"):
        (sample / f"{name}.py").write_text(program)
    (sample / "jobdb").mkdir()
    (sample / "jobdb" / "__init__.py").write_text(program)
    monkeypatch.chdir(sample)
    monkeypatch.setenv("PYTHONPATH", str(sample))
    for first in ("", ".", str(sample)):  # `python -c`, a relative path, `python -m`
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [first, *sys.path])
            with readers.ReaderPool(layout, 1) as process:
                assert list(process.read(names)) == expected
                environment = Path(f"/proc/{process._processes[0].process.pid}/environ").read_bytes()
                assert b"JOBDB_KEY" not in environment and b"PATH=" in environment
    assert not mark.exists()


def test_reading_processes_know_that_the_environment_requires_tokens(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = find_registry(sample)
    names = [path.name for path in layout.jobs.glob("*.json")]
    open_answers = list(readers.Reader(layout).read(names))
    monkeypatch.setenv("MQTT_PASSWORD", "hunter2")
    here = readers.Reader(layout)
    with readers.ReaderPool(layout, 1) as there:
        answers = list(there.read(names))
        arguments = Path(f"/proc/{there._processes[0].process.pid}/cmdline").read_bytes()
    assert answers == list(here.read(names)) != open_answers
    assert b"MQTT_PASSWORD is set" in arguments and b"hunter2" not in arguments


def test_a_reading_process_that_dies_stops_the_import(
    sample: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = readers.ReaderPool

    def killed(layout: readers.Layout) -> readers.Reader:
        process = real(layout, 2)
        os.kill(process._processes[1].process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr("jobdb.legacy.importing.importer.open_reader", killed)
    with pytest.raises(Unusable, match="ended unexpectedly"):
        import_registry(registry, sample)
    assert registry.jobs() == []


def test_a_reading_process_ends_when_its_pipes_are_closed(tmp_path: Path, make_legacy: Callable[..., Path]) -> None:
    make_legacy(tmp_path / "w")
    processes = readers.ReaderPool(find_registry(tmp_path / "w"), 2)
    for each in processes._processes:
        assert each.process.stdin is not None and each.process.stdout is not None
        each.process.stdin.close()
        each.process.stdout.close()
        deadline = time.monotonic() + 30
        while each.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert each.process.returncode == 0
