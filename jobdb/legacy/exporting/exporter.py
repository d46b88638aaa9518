"""The export: a registry that the old scripts can use, written as they write it, or one file of lines.

Called by the command line and by anyone who has a Registry. Works under the old registry's lock; every file is written
beside its place, synced and renamed. What the folder has newer, or what it has and the database has not, stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...crypto.vault import Vault
from ...engines.store import Transaction
from ...errors import StorageFailed
from ...filesystem.atomic_files import write_file
from ...filesystem.permissions import make_private_folder, sync_folder
from ..database.job_row import JobRow, record_from_row
from ..database.job_state import database_state, export_state
from ..database.statements import LEGACY
from ..folder.layout import RECORD_SUFFIX, Layout, find_export_target, read_regular_file
from ..folder.lock import registry_lock
from ..format.damage import Damaged, DamageKind
from ..format.jobdb_state import limit_subscribers, newer_state_reason
from ..format.record import MAX_RECORD_BYTES, LegacyRecord, format_time, parse_record
from ..importing.importer import DEFAULT_LOCK_TIMEOUT_SEC, Progress
from ..importing.source import json_equal
from ..report import ExportReport, Outcome, ReportRow
from .job_files import JobFile, render_job_files, render_record

if TYPE_CHECKING:
    from ...registry import Registry

_PAGE = 100
_PROGRESS_STEP = 100
_TOO_MANY_SUBSCRIBERS = (
    "what its subscribers accepted is too much for a record and was left out: where it is imported they must begin "
    "with --start now"
)


def export_registry(
    registry: Registry,
    directory: str | os.PathLike[str],
    *,
    with_secrets: bool = False,
    lock_timeout_sec: float = DEFAULT_LOCK_TIMEOUT_SEC,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes every job back into a registry folder of the old kind. Files are 0600, new folders 0700.

    Args:
        registry: where from.
        directory: a workspace, whose registry is found or made (``.mam/jobs``), or a folder of records.
        with_secrets: write tokens and broker passwords, in clear, as the old scripts need them. Anyone who can read
            the folder has them then. Without it they are left out (null).
        lock_timeout_sec: how long to wait for the old registry's lock, in seconds.
        progress: called with the number of jobs that are done and of all there are.

    Returns:
        The report: a row for each job. A job of which the folder has something newer is skipped, with the reason.

    Raises:
        InvalidInput: the folder holds two registries, or it is not a folder.
        Busy: the old registry's lock was held by somebody else for too long.
        KeyProblem: the master key is not the one that sealed the secrets.
        StorageFailed: a file could not be written; those before it were.
    """
    layout = find_export_target(Path(directory))
    store, vault = registry.engine.store, registry.engine.vault
    LEGACY.load()
    report = ExportReport(str(layout.jobs))
    try:
        make_private_folder(layout.jobs)
        with (
            registry_lock(layout.jobs, timeout_sec=lock_timeout_sec, create=True),
            store.read() as tx,
        ):
            run = _Export(tx, vault, layout, report, with_secrets=with_secrets)
            total = run.count()
            store.sync()  # what is read from here on was committed before, and must be durable before it leaves
            run.export_all(total, progress or (lambda done, total: None))
            sync_folder(layout.jobs)
    except OSError as error:
        raise StorageFailed(
            f"the export stopped at {error.filename or layout.jobs}: {error.strerror}. The files before it are "
            "written; mend that and export again"
        ) from error
    return report


def job_rows(tx: Transaction) -> Iterator[JobRow]:
    """Every job, in the order in which they were recorded, in bounded memory."""
    after = 0
    while numbers := [row[0] for row in tx.all(LEGACY.legacy_page, after=after, limit=_PAGE)]:
        for row in tx.all(LEGACY.legacy_jobs, first=numbers[0], last=numbers[-1]):
            yield JobRow(*row)
        after = numbers[-1]


class _Export:
    """One run of an export: what its steps share."""

    def __init__(
        self, tx: Transaction, vault: Vault, layout: Layout, report: ExportReport, *, with_secrets: bool
    ) -> None:
        self._tx = tx
        self._vault = vault
        self._layout = layout
        self._report = report
        self._with_secrets = with_secrets

    def count(self) -> int:
        """How many jobs there are; the first look, which fixes what the transaction sees."""
        row = self._tx.one(LEGACY.legacy_count_jobs)
        return row[0] if row else 0

    def export_all(self, total: int, progress: Progress) -> None:
        for done, job in enumerate(job_rows(self._tx), 1):
            outcome, reason, events = self._job(job)
            name = job.job_id + RECORD_SUFFIX
            self._report.add(ReportRow(name, outcome, reason, job.job_id, None, events))
            if done % _PROGRESS_STEP == 0:
                progress(done, total)
        progress(total, total)

    def _job(self, row: JobRow) -> tuple[Outcome, str, int]:
        full_record = record_from_row(row, self._vault)
        record = full_record if self._with_secrets else without_secrets(full_record)
        if record is not full_record:
            self._report.secrets_left_out += 1
        state = export_state(self._tx, row, record)
        record = replace(record, state=limit_subscribers(state))
        left_out = "" if record.state == state else _TOO_MANY_SUBSCRIBERS
        path = self._layout.jobs / (row.job_id + RECORD_SUFFIX)
        existing = _read_existing_record(path)
        reason = _keep_reason(existing, record)
        if not reason and isinstance(existing, LegacyRecord) and existing.state:
            reason = newer_state_reason(existing.state, database_state(self._tx, row))
        if reason:
            return Outcome.SKIPPED, reason, 0
        files, events = render_job_files(self._tx, row, record, full_record, self._layout)
        changed = []
        for file in files:
            if link := _link_above(file, self._layout):
                return Outcome.SKIPPED, f"{link} is a link, which is not followed; move it away first", 0
            content = read_regular_file(str(file.path), 2 * len(file.content) + 1024)
            if isinstance(content, Damaged) and content.kind is not DamageKind.TOO_LARGE:
                return Outcome.SKIPPED, f"{file.path.name} there is damaged ({content.reason}); move it away first", 0
            if content == file.content or _same_document(content, file):
                continue
            if content is not None and file.is_log:
                only_added_to = isinstance(content, bytes) and file.content.startswith(content)
                if not only_added_to:
                    return Outcome.SKIPPED, f"{file.path.name} has lines there that are not here", 0
            changed.append(file)
        same_record = (
            isinstance(existing, LegacyRecord)
            and existing.fingerprint() == record.fingerprint()
            and existing.state == record.state
        )
        for file in changed:
            make_private_folder(file.path.parent)
            write_file(file.path, file.content, follow_folder_link=file.path.parent == self._layout.jobs)
        if not same_record:
            write_file(path, render_record(record), follow_folder_link=True)
        if same_record and not changed:
            return Outcome.UNCHANGED, left_out, 0
        self._report.events += events
        return Outcome.EXPORTED, left_out, events


def _same_document(content: bytes | Damaged | None, file: JobFile) -> bool:
    """Whether a small file of the audit log says what is to be written, though in other bytes."""
    return not file.is_log and isinstance(content, bytes) and json_equal(content, file.content)


def without_secrets(record: LegacyRecord) -> LegacyRecord:
    """The record with null for its token and password; the very same one if it has neither."""
    if not record.auth_token and record.broker_password is None:
        return record
    return replace(record, auth_token=None, broker_password=None)


def _link_above(file: JobFile, layout: Layout) -> Path | None:
    """Return the folder of the audit log, or the job's in it, if it is a link; the records' was looked at before."""
    folders = (file.path.parent, file.path.parent.parent) if file.path.parent != layout.jobs else ()
    return next((folder for folder in folders if folder.is_symlink()), None)


def _read_existing_record(path: Path) -> LegacyRecord | Damaged | None:
    raw = read_regular_file(str(path), MAX_RECORD_BYTES)
    return parse_record(raw, path.name) if isinstance(raw, bytes) else raw


def _keep_reason(existing: LegacyRecord | Damaged | None, record: LegacyRecord) -> str:
    """Why the file that is there must stay; empty if it may be replaced."""
    if existing is None:
        return ""
    if isinstance(existing, Damaged):
        return f"the file there is damaged ({existing.reason}); move it away first"
    if existing.updated_ms > record.updated_ms:
        return f"newer there: {format_time(existing.updated_ms)}, here {format_time(record.updated_ms)}"
    if existing.updated_ms == record.updated_ms and existing.last_seq > record.last_seq:
        return f"it has {existing.last_seq} events there, {record.last_seq} here"
    if (existing.auth_token and not record.auth_token) or (existing.broker_password and not record.broker_password):
        return "the file there holds a token or password that would be lost"
    return ""
