"""The source jobs: records, logs and audit files of the old registry, read together.

Called by the readers. Reads files; uses no database. Damage of a file is returned, never raised.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ..folder.layout import AUDIT_LOG, AUDIT_META, AUDIT_STATUS, LOG_SUFFIX, MAX_LOG_BYTES, RECORD_SUFFIX, Layout
from ..folder.regular_file import open_folder, read_regular_file
from ..format.audit_files import render_audit_file
from ..format.damage import Damaged, FileDamage
from ..format.entry_kind import EntryKind
from ..format.log_reader import JobLogs, KeptLine, read_logs
from ..format.record import LegacyRecord
from ..format.record_parser import MAX_RECORD_BYTES, parse_record
from ..format.strict_json import json_equal

MAX_AUDIT_FILE_BYTES = MAX_RECORD_BYTES


@dataclass(slots=True)
class SourceJob:
    """A valid record with its logs.

    Attributes:
        bytes_read: the memory that its files took, for limiting how much is read at once.
        digests: SHA-256 of each log; the audit log's is followed by those of its small files.
        damage: the files other than the record that could not be imported completely, by path within the folder.
        auth_required_by: why every job must have a token in this environment; None if that is not required.
    """

    record: LegacyRecord
    bytes_read: int
    logs: JobLogs = field(init=False)
    digests: dict[EntryKind, bytes] = field(default_factory=dict)
    damage: list[FileDamage] = field(default_factory=list)
    auth_required_by: str | None = None

    @property
    def last_seq(self) -> int:
        """The job's corrected last_seq: the record's, or the log's if that is ahead."""
        return max(self.record.last_seq, self.logs.highest_seq)

    def notes(self) -> list[str]:
        """Return unusual but harmless observations, a sentence each."""
        notes = list(self.logs.notes)
        if self.logs.highest_seq > self.record.last_seq:
            notes.append(f"last_seq was {self.record.last_seq}, behind the log; it is {self.logs.highest_seq} here")
        return notes


class SourceReader:
    """The reader of one registry's source jobs.

    Args:
        layout: its folders.
        auth_required_by: why every job must have a token here; None if that is not required.
    """

    def __init__(self, layout: Layout, auth_required_by: str | None = None) -> None:
        self._jobs = f"{layout.jobs}/"
        audit = open_folder(str(layout.audit))
        self._audit_fd = audit if isinstance(audit, int) else None
        self._auth_required_by = auth_required_by
        self.audit_name = f"../{layout.audit.name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor of the audit log's folder."""
        if self._audit_fd is not None:
            os.close(self._audit_fd)
            self._audit_fd = None

    def read(
        self, file_name: str, *, record_only_status: str | None = None
    ) -> SourceJob | LegacyRecord | Damaged | None:
        """Return the job of a record's file; None if the file no longer exists.

        Args:
            file_name: the file.
            record_only_status: return only the record, without its logs, if it has this status.
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
        job_fd = None if self._audit_fd is None else open_folder(job_id, dir_fd=self._audit_fd)
        if isinstance(job_fd, Damaged):
            source.damage.append(FileDamage(f"{self.audit_name}/{job_id}", job_fd))
            job_fd = None
        try:
            self._read_files(source, job_id, job_fd)
        finally:
            if job_fd is not None:
                os.close(job_fd)

    def _read_files(self, source: SourceJob, job_id: str, job_fd: int | None) -> None:
        content = read_regular_file(self._jobs + job_id + LOG_SUFFIX, MAX_LOG_BYTES)
        found: list[tuple[EntryKind, bytes]] = []
        if isinstance(content, bytes):
            found.append((EntryKind.EVENT_LOG, content))
        elif content is not None:
            source.damage.append(FileDamage(job_id + LOG_SUFFIX, content))
        if job_fd is not None:
            content = read_regular_file(AUDIT_LOG, MAX_LOG_BYTES, dir_fd=job_fd)
            if isinstance(content, bytes):
                found.append((EntryKind.AUDIT_LOG, content))
            elif content is not None:
                source.damage.append(FileDamage(f"{self.audit_name}/{job_id}/{AUDIT_LOG}", content))
        record = source.record
        if found:
            secrets = [secret for secret in (record.auth_token, record.broker_password) if secret]
            source.logs = read_logs(job_id, found, fallback_ms=record.updated_ms, secrets=secrets)
        else:
            source.logs = JobLogs()
        for kind, content in found:
            source.bytes_read += 2 * len(content)
            source.digests[kind] = hashlib.sha256(content).digest()
        for kind, damaged in source.logs.damage.items():
            path = job_id + LOG_SUFFIX
            if kind is EntryKind.AUDIT_LOG:
                path = f"{self.audit_name}/{job_id}/{AUDIT_LOG}"
            source.damage.append(FileDamage(path, damaged))
        if job_fd is not None:
            self._read_audit_files(source, job_id, job_fd)

    def _read_audit_files(self, source: SourceJob, job_id: str, job_fd: int) -> None:
        for kind, name in ((EntryKind.AUDIT_META, AUDIT_META), (EntryKind.AUDIT_STATUS, AUDIT_STATUS)):
            raw = read_regular_file(name, MAX_AUDIT_FILE_BYTES, dir_fd=job_fd)
            if raw is None:
                continue
            if isinstance(raw, Damaged):
                source.damage.append(FileDamage(f"{self.audit_name}/{job_id}/{name}", raw))
                continue
            source.bytes_read += len(raw)
            if json_equal(raw, render_audit_file(kind, source.record)):
                raw = b""
            source.logs.kept.append(KeptLine(kind, 0, raw))
            before = source.digests.get(EntryKind.AUDIT_LOG, b"")
            source.digests[EntryKind.AUDIT_LOG] = before + hashlib.sha256(raw).digest()
