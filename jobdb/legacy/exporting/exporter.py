"""The export to a folder that the old scripts can use, in their format.

Called by the command line and by applications that have a Registry. Works under the old registry's lock; every file is
written under a temporary name, synced and renamed. Files that are newer in the folder, or contain data that the
database does not have, are kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...crypto.vault import Vault
from ...engines.store import Transaction
from ...errors import StorageFailed
from ...filesystem.atomic_files import write_file
from ...filesystem.folder_sync import sync_folder
from ...filesystem.permissions import make_private_folder
from ..database.job_queries import all_jobs, count_jobs
from ..database.job_row import JobRow, record_from_row
from ..database.job_state import database_state, export_state
from ..database.statements import LEGACY
from ..folder.layout import RECORD_SUFFIX, Layout, find_export_target
from ..folder.lock import DEFAULT_LOCK_TIMEOUT_SEC, registry_lock
from ..folder.regular_file import read_regular_file
from ..format.damage import Damaged, DamageKind
from ..format.jobdb_state import limit_subscribers, newer_state_reason
from ..format.record import LegacyRecord
from ..format.record_parser import MAX_RECORD_BYTES, parse_record
from ..format.strict_json import json_equal
from ..format.timestamps import format_time
from ..report import ExportReport, Outcome, Progress, ReportRow
from .job_files import JobFile, render_job_files, render_record

if TYPE_CHECKING:
    from ...registry import Registry

_PROGRESS_STEP = 100
_TOO_MANY_SUBSCRIBERS = (
    "its subscribers' positions are too large for a record and were left out: where it is imported, they must begin "
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
    """Export every job to a folder of the old registry. Files are 0600, new folders 0700.

    Args:
        registry: the registry to export.
        directory: a workspace, whose registry is found or created (``.mam/jobs``), or a folder of records.
        with_secrets: True to write tokens and broker passwords in clear text, as the old scripts need them; anyone who
            can read the folder then has them. Otherwise they are omitted (null).
        lock_timeout_sec: how long to wait for the old registry's lock, in seconds.
        progress: called with the number of jobs done and the total.

    Returns:
        The report, with a row per job. A job that is newer in the folder is skipped, with the reason.

    Raises:
        InvalidInput: the folder holds two registries, or it is not a folder.
        Busy: the old registry's lock was held by another process for too long.
        KeyProblem: the master key is not the one that sealed the secrets.
        StorageFailed: a file could not be written; the files before it were written.

    Example:
        with Registry.open("sqlite:///jobs.db") as registry:
            report = export_registry(registry, "workspace", with_secrets=True)
            print(report.ok, report.as_dict()["exported"])
    """
    layout = find_export_target(Path(directory))
    store, vault = registry.store, registry.engine.vault
    LEGACY.load()
    report = ExportReport(str(layout.jobs))
    try:
        make_private_folder(layout.jobs)
        with (
            registry_lock(layout.jobs, timeout_sec=lock_timeout_sec, create=True),
            store.read() as tx,
        ):
            run = _Export(tx, vault, layout, report, with_secrets=with_secrets)
            total = count_jobs(tx)  # the first read, which fixes the transaction's snapshot
            store.sync()  # all that is read from now on was committed before, and must be durable before the export
            run.export_all(total, progress or (lambda done, total: None))
            sync_folder(layout.jobs)
    except OSError as error:
        raise StorageFailed(
            f"the export stopped at {error.filename or layout.jobs}: {error.strerror}. The files before it are written",
            advice="remove the cause and export again",
        ) from error
    return report


class _Export:
    """A run of an export."""

    def __init__(
        self, tx: Transaction, vault: Vault, layout: Layout, report: ExportReport, *, with_secrets: bool
    ) -> None:
        self._tx = tx
        self._vault = vault
        self._layout = layout
        self._report = report
        self._with_secrets = with_secrets

    def export_all(self, total: int, progress: Progress) -> None:
        """Export every job and report it."""
        for done, row in enumerate(all_jobs(self._tx), 1):
            self._report.add(self._export_job(row))
            if done % _PROGRESS_STEP == 0:
                progress(done, total)
        progress(total, total)

    def _export_job(self, row: JobRow) -> ReportRow:
        name = row.job_id + RECORD_SUFFIX
        full_record = record_from_row(row, self._vault)
        record = full_record if self._with_secrets else without_secrets(full_record)
        if record is not full_record:
            self._report.secrets_left_out += 1
        state = export_state(self._tx, row, record)
        record = replace(record, state=limit_subscribers(state))
        note = "" if record.state == state else _TOO_MANY_SUBSCRIBERS
        path = self._layout.jobs / name
        existing = _read_existing_record(path)
        reason = _keep_reason(existing, record)
        if not reason and isinstance(existing, LegacyRecord) and existing.state:
            reason = newer_state_reason(existing.state, database_state(self._tx, row))
        if reason:
            return ReportRow(name, Outcome.SKIPPED, reason, row.job_id)
        files, events = render_job_files(self._tx, row, record, full_record, self._layout)
        changed = self._changed_files(files)
        if isinstance(changed, str):
            return ReportRow(name, Outcome.SKIPPED, changed, row.job_id)
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
            return ReportRow(name, Outcome.UNCHANGED, note, row.job_id)
        self._report.events += events
        return ReportRow(name, Outcome.EXPORTED, note, row.job_id, events=events)

    def _changed_files(self, files: Sequence[JobFile]) -> list[JobFile] | str:
        """Return the files that differ from the existing ones, or the reason why an existing one must be kept."""
        changed = []
        for file in files:
            if link := _link_above(file, self._layout):
                return f"{link} is a link, which is not followed; move it away first"
            content = read_regular_file(str(file.path), 2 * len(file.content) + 1024)
            if isinstance(content, Damaged) and content.kind is not DamageKind.TOO_LARGE:
                return f"{file.path.name} there is damaged ({content.reason}); move it away first"
            if content == file.content or _same_document(content, file):
                continue
            if content is not None and file.is_log:
                only_added_to = isinstance(content, bytes) and file.content.startswith(content)
                if not only_added_to:
                    return f"{file.path.name} has lines there that are not here"
            changed.append(file)
        return changed


def _same_document(content: bytes | Damaged | None, file: JobFile) -> bool:
    """Return whether a small file of the audit log already has the content to be written, though in other bytes."""
    return not file.is_log and isinstance(content, bytes) and json_equal(content, file.content)


def without_secrets(record: LegacyRecord) -> LegacyRecord:
    """Return the record with null for its token and password; the same object if it has neither."""
    if not record.auth_token and record.broker_password is None:
        return record
    return replace(record, auth_token=None, broker_password=None)


def _link_above(file: JobFile, layout: Layout) -> Path | None:
    """Return the audit log's folder, or the job's folder in it, if it is a link; the records' folder was checked."""
    folders = (file.path.parent, file.path.parent.parent) if file.path.parent != layout.jobs else ()
    return next((folder for folder in folders if folder.is_symlink()), None)


def _read_existing_record(path: Path) -> LegacyRecord | Damaged | None:
    raw = read_regular_file(str(path), MAX_RECORD_BYTES)
    return parse_record(raw, path.name) if isinstance(raw, bytes) else raw


def _keep_reason(existing: LegacyRecord | Damaged | None, record: LegacyRecord) -> str:
    """Return why the existing file must be kept; empty if it may be replaced."""
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
