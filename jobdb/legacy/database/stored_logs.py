"""The logs of a job, rebuilt from the database as they were in the old registry.

Called by the normalization and the verification (exactly the imported logs) and by the exporter (which appends what
was added since). Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ...errors import StorageFailed
from ..format.entry_kind import EntryKind
from ..format.log_form import render_log
from ..format.log_line import LogEvent
from ..format.record import LegacyRecord
from ..format.secret_mask import unmask
from .job_row import JobRow
from .job_values import EventValues, LineValues, OriginValues

_AUDIT_FILES = (EntryKind.AUDIT_LOG, EntryKind.AUDIT_META, EntryKind.AUDIT_STATUS)


def masked_secrets(record: LegacyRecord) -> dict[str, str | None]:
    """Return the secrets that are masked in kept lines, keyed by name."""
    return {"auth_token": record.auth_token, "broker.password": record.broker_password}


def rebuild_logs(
    forms: OriginValues | JobRow, record: LegacyRecord, payloads: Mapping[int, str], lines: Iterable[LineValues]
) -> dict[EntryKind, bytes]:
    """Return each log that was imported for a job, byte for byte, and the audit log's small files that were kept.

    Args:
        forms: the forms of the logs.
        record: the job's record, whose secrets are put back into lines that contained them.
        payloads: the payloads of its events, by seq.
        lines: its kept lines, in order.

    Raises:
        StorageFailed: a line is not in the database.
    """
    if forms.event_form is None and forms.audit_digest is None:
        return {}
    kept: dict[str, list[bytes]] = {}
    for line in lines:
        kept.setdefault(line.log, []).append(unmask(bytes(line.raw), masked_secrets(record)))
    found: dict[EntryKind, bytes] = {}
    for kind, form in ((EntryKind.EVENT_LOG, forms.event_form), (EntryKind.AUDIT_LOG, forms.audit_form)):
        if form is not None:
            try:
                found[kind] = render_log(form, payloads.__getitem__, iter(kept.get(kind, ())))
            except KeyError as error:
                raise StorageFailed(
                    f"the database lacks a line of the {kind.value.replace('_', ' ')} of job {record.job_id}",
                    advice="check it with 'jobdb doctor --full', and restore a backup",
                ) from error
    for kind in (EntryKind.AUDIT_META, EntryKind.AUDIT_STATUS):
        if kind in kept:
            found[kind] = kept[kind][0]
    return found


def log_digests(
    forms: OriginValues | JobRow,
    record: LegacyRecord,
    events: Sequence[EventValues | LogEvent],
    lines: Sequence[LineValues],
) -> tuple[bytes, bytes]:
    """Return the digests of the event log and of the audit log's files as rebuilt from these values.

    Raises:
        StorageFailed: the forms name an event or a line that is not among them.
    """
    if (
        forms.audit_form is None
        and forms.audit_digest is None
        and not lines
        and forms.event_form in ("1", f"1-{len(events)}")
    ):
        # The usual case: only an event log, with only events in it.
        content = "\n".join([event.payload for event in events]) + "\n"
        return hashlib.sha256(content.encode()).digest(), b""
    payloads = {event.seq: event.payload for event in events}
    logs = rebuild_logs(forms, record, payloads, lines)
    digests = {kind: hashlib.sha256(content).digest() for kind, content in logs.items()}
    return digests.get(EntryKind.EVENT_LOG, b""), b"".join(digests.get(kind, b"") for kind in _AUDIT_FILES)
