"""One job as the old registry's files hold it: record, logs, audit files, read together.

Called by the importer. Reads files; knows no database. Whatever is wrong with a file is an answer, never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field

from ..folder.layout import (
    AUDIT_LOG,
    AUDIT_META,
    AUDIT_STATUS,
    LOG_SUFFIX,
    MAX_LOG_BYTES,
    RECORD_SUFFIX,
    EntryKind,
    Layout,
    open_folder,
    read_regular_file,
)
from ..format.damage import Damaged
from ..format.log_reader import JobLogs, KeptLine, read_logs
from ..format.record import MAX_RECORD_BYTES, LegacyRecord, format_time, parse_record
from ..format.strict_json import parse_object

MAX_AUDIT_FILE_BYTES = MAX_RECORD_BYTES
NO_LOGS = JobLogs()


@dataclass(slots=True)
class SourceJob:
    """A legal record with its logs.

    Attributes:
        bytes_read: how much memory its files took, for keeping what is read at once within bounds.
        digests: SHA-256 of each log; the audit log's with those of its small files behind it.
        damage: files beside the record that could not be taken over as a whole, by path within the folder.
        auth_required_by: why every job must have a token in this environment; None where it need not.
    """

    record: LegacyRecord
    bytes_read: int
    logs: JobLogs = field(default_factory=lambda: NO_LOGS)
    digests: dict[EntryKind, bytes] = field(default_factory=dict)
    damage: list[tuple[str, Damaged]] = field(default_factory=list)
    auth_required_by: str | None = None

    @property
    def last_seq(self) -> int:
        """What the job's last_seq must be: the record's, or the log's where that is ahead."""
        return max(self.record.last_seq, self.logs.highest_seq)

    def notes(self) -> list[str]:
        """What is unusual and harmless."""
        if self.logs is NO_LOGS:
            return []
        notes = list(self.logs.notes)
        if self.logs.highest_seq > self.record.last_seq:
            notes.append(f"last_seq was {self.record.last_seq}, behind the log; it is {self.logs.highest_seq} here")
        return notes


class SourceReader:
    """Reads the jobs of one registry.

    Args:
        layout: its folders.
        auth_required_by: why every job must have a token here; None where it need not.
    """

    def __init__(self, layout: Layout, auth_required_by: str | None = None) -> None:
        self._jobs = f"{layout.jobs}/"
        audit = open_folder(str(layout.audit))
        self._audit = audit if isinstance(audit, int) else None
        self._auth_required_by = auth_required_by
        self.audit_name = f"../{layout.audit.name}"

    def close(self) -> None:
        """Give the folder of the audit log back."""
        if self._audit is not None:
            os.close(self._audit)
            self._audit = None

    def read(
        self, file_name: str, *, record_only_status: str | None = None
    ) -> SourceJob | LegacyRecord | Damaged | None:
        """The job of a record's file; None if the file has gone.

        Args:
            file_name: the file.
            record_only_status: for a record of this status, the record without its logs is enough.
        """
        raw = read_regular_file(self._jobs + file_name, MAX_RECORD_BYTES)
        if not isinstance(raw, bytes):
            return raw
        record = parse_record(raw, file_name)
        if isinstance(record, Damaged) or record.status == record_only_status:
            return record
        source = SourceJob(record, len(raw), auth_required_by=self._auth_required_by)
        self._read_logs(source, file_name[: -len(RECORD_SUFFIX)])
        return source

    def _read_logs(self, source: SourceJob, job_id: str) -> None:
        folder = None if self._audit is None else open_folder(job_id, folder=self._audit)
        if isinstance(folder, Damaged):
            source.damage.append((f"{self.audit_name}/{job_id}", folder))
            folder = None
        try:
            self._read_files(source, job_id, folder)
        finally:
            if folder is not None:
                os.close(folder)

    def _read_files(self, source: SourceJob, job_id: str, folder: int | None) -> None:
        content = read_regular_file(self._jobs + job_id + LOG_SUFFIX, MAX_LOG_BYTES)
        found: list[tuple[EntryKind, bytes]] = []
        if isinstance(content, bytes):
            found.append((EntryKind.EVENT_LOG, content))
        elif content is not None:
            source.damage.append((job_id + LOG_SUFFIX, content))
        if folder is not None:
            content = read_regular_file(AUDIT_LOG, MAX_LOG_BYTES, folder=folder)
            if isinstance(content, bytes):
                found.append((EntryKind.AUDIT_LOG, content))
            elif content is not None:
                source.damage.append((f"{self.audit_name}/{job_id}/{AUDIT_LOG}", content))
        if found:
            record = source.record
            secrets = [secret for secret in (record.auth_token, record.broker_password) if secret]
            source.logs = read_logs(job_id, found, fallback_ms=record.updated_ms, secrets=secrets)
            for kind, content in found:
                source.bytes_read += 2 * len(content)
                source.digests[kind] = hashlib.sha256(content).digest()
            for kind, damaged in source.logs.damage.items():
                name = job_id + LOG_SUFFIX
                if kind is EntryKind.AUDIT_LOG:
                    name = f"{self.audit_name}/{job_id}/{AUDIT_LOG}"
                source.damage.append((name, damaged))
        if folder is not None:
            self._read_audit_files(source, job_id, folder)

    def _read_audit_files(self, source: SourceJob, job_id: str, folder: int) -> None:
        for kind, name in ((EntryKind.AUDIT_META, AUDIT_META), (EntryKind.AUDIT_STATUS, AUDIT_STATUS)):
            raw = read_regular_file(name, MAX_AUDIT_FILE_BYTES, folder=folder)
            if raw is None:
                continue
            if isinstance(raw, Damaged):
                source.damage.append((f"{self.audit_name}/{job_id}/{name}", raw))
                continue
            if source.logs is NO_LOGS:
                source.logs = JobLogs()
            source.bytes_read += len(raw)
            if json_equal(raw, render_audit_file(kind, source.record)):
                raw = b""
            source.logs.kept.append(KeptLine(kind, 0, raw))
            before = source.digests.get(EntryKind.AUDIT_LOG, b"")
            source.digests[EntryKind.AUDIT_LOG] = before + hashlib.sha256(raw).digest()


def render_audit_file(kind: EntryKind, record: LegacyRecord) -> bytes:
    """``meta.json`` or ``status.json`` as the old scripts write it for a record."""
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


def json_equal(one: bytes, other: bytes) -> bool:
    """Whether two texts are the same JSON object."""
    first, second = parse_object(one), parse_object(other)
    if isinstance(first, Damaged) or isinstance(second, Damaged):
        return False
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
