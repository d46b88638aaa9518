"""The logs of a job out of the database, as they stood in the old registry.

Called by the verification (exactly what was imported) and by the exporter (that, and what was added since).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import StorageFailed
from ..folder.layout import EntryKind
from ..format.log_reader import render_log, unmask
from ..format.record import LegacyRecord
from .job_row import JobRow


def masked_secrets(record: LegacyRecord) -> dict[str, str | None]:
    """What is masked in kept lines, by name."""
    return {"auth_token": record.auth_token, "broker.password": record.broker_password}


def rebuild_logs(
    row: JobRow, record: LegacyRecord, payloads: Mapping[int, str], lines: Iterable[tuple[str, bytes]]
) -> dict[EntryKind, bytes]:
    """Each log that was imported for a job, byte for byte, and the audit log's small files where they were kept.

    Args:
        row: the job.
        record: its record, whose secrets are put back into lines that held them.
        payloads: the lines of its events, by seq.
        lines: its kept lines, in order, each with its log.

    Raises:
        StorageFailed: a line is not in the database.
    """
    return rebuild_logs_from(record, row.event_form, row.audit_form, row.audit_digest, payloads, lines)


def rebuild_logs_from(
    record: LegacyRecord,
    event_form: str | None,
    audit_form: str | None,
    audit_digest: bytes | None,
    payloads: Mapping[int, str],
    lines: Iterable[tuple[str, bytes]],
) -> dict[EntryKind, bytes]:
    """The same from the values that matter; the arguments are as above."""
    if event_form is None and audit_digest is None:
        return {}
    kept: dict[str, list[bytes]] = {}
    for log, raw in lines:
        kept.setdefault(log, []).append(unmask(bytes(raw), masked_secrets(record)))
    found: dict[EntryKind, bytes] = {}
    for kind, form in ((EntryKind.EVENT_LOG, event_form), (EntryKind.AUDIT_LOG, audit_form)):
        if form is not None:
            try:
                found[kind] = render_log(form, payloads.__getitem__, iter(kept.get(kind, ())))
            except KeyError as error:
                raise StorageFailed(
                    f"the database lacks a line of the {kind.value.replace('_', ' ')} of job {record.job_id}; check it "
                    "with 'jobdb doctor --full', and restore a backup"
                ) from error
    for kind in (EntryKind.AUDIT_META, EntryKind.AUDIT_STATUS):
        if kind in kept:
            found[kind] = kept[kind][0]
    return found
