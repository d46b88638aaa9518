"""Test that the named tuples of rows have the columns of their statements, in order."""

from __future__ import annotations

import re

from jobdb.engines.statements import Statement, parameters
from jobdb.legacy.database.job_row import JobRow
from jobdb.legacy.database.job_values import STORED_COLUMNS, EventValues, LineValues
from jobdb.legacy.database.statements import LEGACY
from jobdb.legacy.importing import batch_writer
from jobdb.legacy.importing.verification import SealedColumns


def columns(statement: Statement) -> tuple[str, ...]:
    """Return the column names of a SELECT."""
    selected = re.search(r"SELECT (.*?)\sFROM", statement.text, re.DOTALL)
    assert selected is not None
    return tuple(re.split(r"[ .]", column.strip())[-1] for column in selected[1].split(","))


def test_named_tuples_match_the_columns_read() -> None:
    assert columns(LEGACY.legacy_job) == columns(LEGACY.legacy_jobs) == JobRow._fields
    assert columns(LEGACY.legacy_new_job_rows) == (*SealedColumns._fields, *STORED_COLUMNS)
    assert columns(LEGACY.legacy_events) == ("job", *EventValues._fields)
    assert columns(LEGACY.legacy_lines) == ("job", *LineValues._fields)


def test_named_tuples_match_the_columns_written() -> None:
    """SQLite numbers parameters in the order of their appearance, and rows are bound by position."""
    for statement, names in (
        (LEGACY.legacy_insert_job, batch_writer.JOB_PARAMETERS),
        (LEGACY.legacy_insert_spec, batch_writer.SPEC_PARAMETERS),
        (LEGACY.legacy_upsert_token, batch_writer.KEY_PARAMETERS),
        (LEGACY.legacy_upsert_import, batch_writer.ORIGIN_PARAMETERS),
        (LEGACY.legacy_insert_line, batch_writer.LINE_PARAMETERS),
        (LEGACY.legacy_insert_event, batch_writer.EVENT_PARAMETERS),
    ):
        assert tuple(parameters(statement.text)) == names
