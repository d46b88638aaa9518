"""The audit log's small files: ``meta.json`` and ``status.json``, rendered from a record.

Called by the reader of source jobs, which keeps only files that differ, and by the exporter. Pure.
"""

from __future__ import annotations

import json

from .entry_kind import EntryKind
from .record import LegacyRecord
from .timestamps import format_time


def render_audit_file(kind: EntryKind, record: LegacyRecord) -> bytes:
    """Return ``meta.json`` or ``status.json`` for a record in the old scripts' format."""
    if kind is EntryKind.AUDIT_META:
        document = record.as_document()
        document.pop("broker", None)
        document.pop("auth_token", None)
    else:
        document = {
            "job_id": record.job_id,
            "status": record.status,
            "updated_at": format_time(record.updated_ms),
        }
    return json.dumps(document).encode("utf-8")
