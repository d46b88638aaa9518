"""Test the verification of an import: a difference from the files rolls the import back or leaves the job out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobdb import KeyProblem, Registry, StorageFailed
from jobdb.engines.sqlite.transaction import ROWS_PER_INSERT, SqliteTransaction
from jobdb.engines.statements import Statement
from jobdb.legacy import Outcome, import_registry
from jobdb.legacy.database.job_values import EventValues, JobValues
from jobdb.legacy.database.statements import LEGACY
from jobdb.legacy.format.damage import DamageKind
from jobdb.legacy.importing import normalization


def _shorter_prompt(rows: Any) -> Any:
    return [(job, prompt[:-1], *rest) for job, prompt, *rest in rows]


def _other_token(rows: Any) -> Any:
    return [(job, sealed[:-1] + bytes([sealed[-1] ^ 1]), *rest) for job, sealed, *rest in rows]


def _tokens_exchanged(rows: Any) -> Any:
    return [(job, other[1], *rest) for (job, _, *rest), other in zip(rows, reversed(rows), strict=True)]


def _later(rows: Any) -> Any:
    return [job._replace(created_ms=job.created_ms + 1000) for job in map(JobValues._make, rows)]


def _other_digest(rows: Any) -> Any:
    return [(job, *EventValues._make(event)._replace(digest=b"0" * 32)) for job, *event in rows]


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("legacy_insert_job", _later),
        ("legacy_insert_spec", _shorter_prompt),
        ("legacy_upsert_token", _other_token),
        ("legacy_upsert_token", _tokens_exchanged),
        ("legacy_upsert_token", lambda rows: rows[1:]),
        ("legacy_upsert_import", lambda rows: [(*row[:-1], b"0") for row in rows]),
        ("legacy_insert_event", _other_digest),
        ("legacy_insert_event", lambda rows: rows[1:]),
        ("legacy_insert_line", lambda rows: []),
        ("legacy_insert_line", lambda rows: [(*row[:-1], row[-1] + b" ") for row in rows]),
    ],
)
def test_an_import_that_wrote_different_data_is_rolled_back(
    sample: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, statement: str, wrong: Any
) -> None:
    real = SqliteTransaction.run_rows

    def run_rows(self: SqliteTransaction, used: Statement, names: Any, rows: Any) -> None:
        real(self, used, names, wrong(rows) if used.name == statement else rows)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteTransaction, "run_rows", run_rows)
        with pytest.raises((StorageFailed, KeyProblem)):
            import_registry(registry, sample)
    assert registry.jobs() == []
    assert import_registry(registry, sample).counts[Outcome.IMPORTED] == 200


@pytest.mark.parametrize(
    "lines", [0, 1, ROWS_PER_INSERT - 1, ROWS_PER_INSERT, ROWS_PER_INSERT + 1, 3 * ROWS_PER_INSERT + 7]
)
@pytest.mark.parametrize("names", [("job", "log", "number", "raw"), ("raw", "number", "log", "job")])
def test_rows_of_a_batch_are_all_written_unchanged(
    sample: Path, registry: Registry, lines: int, names: tuple[str, ...]
) -> None:
    import_registry(registry, sample)
    row = {"job": 1, "log": "event_log"}
    rows = [{**row, "number": number, "raw": b"line %d" % number} for number in range(1, lines + 1)]
    with registry.engine.store.write() as tx:
        tx.run(LEGACY.legacy_delete_lines, job=1)
        tx.run_rows(LEGACY.legacy_insert_line, names, (tuple(row[name] for name in names) for row in rows))
        found = tx.all(LEGACY.legacy_lines, first=1, last=1)
    assert found == [(1, "event_log", row["number"], row["raw"]) for row in rows]


def _no_prompt(values: Any) -> Any:
    return lambda record: values(record)._replace(prompt="")


def _one_event_less(real: Any) -> Any:
    return lambda source, trust: real(source, trust)._replace(event_form="2-3")


def test_a_job_that_would_change_is_reported_and_left_out(
    sample: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(normalization, "_spec_values", _no_prompt(normalization._spec_values))
        report = import_registry(registry, sample)
    assert sum(row.damage is DamageKind.NOT_HELD for row in report.rows()) == 200
    assert registry.jobs() == []


def test_logs_that_would_change_are_reported_with_their_job(
    sample: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = sorted(sample.glob(".*/jobs/*.events.log"))[0]
    with monkeypatch.context() as patch:
        patch.setattr(normalization, "_origin_values", _one_event_less(normalization._origin_values))
        named = [row.file for row in import_registry(registry, sample).rows() if row.damage is DamageKind.NOT_HELD]
    assert f"{log.name.partition('.')[0]}.json" in named
    assert import_registry(registry, sample).counts[Outcome.DAMAGED] == 6
    assert sum(registry.count_by_status().values()) == 200
