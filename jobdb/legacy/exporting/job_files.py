"""The files that an export writes for a job: its record, event log and audit log.

Called by the exporter. For a job that has not changed since its import they equal the imported files: the record as
JSON, the logs byte for byte. Events that were recorded since are appended to the logs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ...engines.store import Transaction
from ..database.job_row import JobRow
from ..database.job_values import LineValues
from ..database.statements import LEGACY
from ..database.stored_logs import rebuild_logs
from ..folder.layout import AUDIT_LOG, AUDIT_META, AUDIT_STATUS, LOG_SUFFIX, Layout
from ..format.audit_files import render_audit_file
from ..format.entry_kind import EntryKind
from ..format.jobdb_state import STATE_FIELD
from ..format.log_form import seqs_in_form
from ..format.record import LegacyRecord

_AUDIT_NAMES = {
    EntryKind.AUDIT_LOG: AUDIT_LOG,
    EntryKind.AUDIT_META: AUDIT_META,
    EntryKind.AUDIT_STATUS: AUDIT_STATUS,
}


@dataclass(slots=True)
class JobFile:
    """A file to write.

    Attributes:
        is_log: True for a log, which is only appended to.
    """

    path: Path
    content: bytes = field(repr=False)
    is_log: bool


def render_record(record: LegacyRecord) -> bytes:
    """Return the content of a record's file in the old scripts' format."""
    document = record.as_document()
    if record.state:
        document[STATE_FIELD] = record.state
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8")


def render_job_files(
    tx: Transaction, row: JobRow, record: LegacyRecord, full_record: LegacyRecord, layout: Layout
) -> tuple[list[JobFile], int]:
    """Return the files other than the record, and the number of events.

    Args:
        tx: a transaction.
        row: the job.
        record: its record to be written, with or without secrets.
        full_record: its record with secrets.
        layout: the folders to write to.
    """
    payloads: dict[int, str] = dict(tx.all(LEGACY.legacy_payloads, job=row.row_id))
    lines = tx.all(LEGACY.legacy_lines, first=row.row_id, last=row.row_id) if row.imported else []
    logs = rebuild_logs(row, record, payloads, [LineValues(log, number, raw) for _, log, number, raw in lines])
    known = seqs_in_form(row.event_form) | seqs_in_form(row.audit_form)
    added = b"".join(text.encode("utf-8") + b"\n" for seq, text in payloads.items() if seq not in known)
    if added:
        if EntryKind.EVENT_LOG not in logs:
            # The first events since the import: the old scripts expect all events in one log.
            whole = (text.encode("utf-8") + b"\n" for text in payloads.values())
            logs[EntryKind.EVENT_LOG] = b"".join(whole)
        else:
            logs[EntryKind.EVENT_LOG] = _append_lines(logs[EntryKind.EVENT_LOG], added)
        if EntryKind.AUDIT_LOG in logs:
            logs[EntryKind.AUDIT_LOG] = _append_lines(logs[EntryKind.AUDIT_LOG], added)
    for kind in (EntryKind.AUDIT_META, EntryKind.AUDIT_STATUS):
        if kind in logs and (not logs[kind] or not row.unchanged_since_import):
            logs[kind] = render_audit_file(kind, full_record)
    files = []
    for kind, content in logs.items():
        if kind is EntryKind.EVENT_LOG:
            files.append(JobFile(layout.jobs / (row.job_id + LOG_SUFFIX), content, is_log=True))
        else:
            path = layout.audit / row.job_id / _AUDIT_NAMES[kind]
            files.append(JobFile(path, content, is_log=kind is EntryKind.AUDIT_LOG))
    return files, len(payloads)


def _append_lines(log: bytes, added: bytes) -> bytes:
    """Append lines to a log whose last line may be cut short."""
    return log + added if not log or log.endswith(b"\n") else log + b"\n" + added
