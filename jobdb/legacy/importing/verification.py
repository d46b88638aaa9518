"""The verification before the commit: reads back everything that an import wrote and compares it with the files.

Called by the batch writer after each batch and by the importer at the end, inside the import's transaction. The
normalization has already verified that the values of a job reproduce its record and logs. Here they are compared with
the database: for a new job every column of every row, for an existing one its record and logs. At the end the digests
over all jobs, from the files and from the database, must be equal, and the number of jobs must be right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from ...crypto.vault import Vault
from ...engines.sql.sealer import password_binding, token_binding
from ...engines.statements import Statement
from ...engines.store import Row, Transaction
from ...errors import StorageFailed
from ..database.job_queries import count_jobs, find_job
from ..database.job_row import JobRow, record_from_row
from ..database.job_state import database_state
from ..database.job_values import EventValues, LineValues
from ..database.statements import LEGACY
from ..database.stored_logs import log_digests
from ..format.jobdb_state import STATE_FIELD, newer_state_reason
from ..format.seq_ranges import SeqRange, consecutive_ranges
from .normalized_job import NormalizedJob, pack_rows

Json = Any


class WrittenJob(NamedTuple):
    """A new job that was written.

    Attributes:
        row_id: its row id in the database.
        source: the job as read from its files.
        line_count: the number of its kept lines.
    """

    row_id: int
    source: NormalizedJob
    line_count: int


class SealedColumns(NamedTuple):
    """The first columns of ``legacy_new_job_rows``; those of `STORED_COLUMNS` follow."""

    row_id: int
    kid: int
    sealed_token: bytes | None
    sealed_password: bytes | None


_SEALED = len(SealedColumns._fields)


class Verification:
    """The comparison of the written rows with the files, batch by batch.

    Args:
        tx: the import's transaction.
        vault: unseals the secrets.
    """

    def __init__(self, tx: Transaction, vault: Vault) -> None:
        self._tx = tx
        self._vault = vault
        self.jobs_before = count_jobs(tx)
        """The number of jobs before the import."""

        self._new = 0
        self._from_files = hashlib.sha256()
        self._from_database = hashlib.sha256()

    def check_new(self, batch: Sequence[WrittenJob]) -> None:
        """Read new jobs back and compare them.

        Raises:
            StorageFailed: a job is not in the database as it is in its files; the transaction must be rolled back.
        """
        batch = sorted(batch, key=attrgetter("row_id"))
        ranges = list(consecutive_ranges(job.row_id for job in batch))
        rows = self._read(LEGACY.legacy_new_job_rows, ranges)
        if len(rows) != len(batch):
            raise _verification_failed(f"{len(batch)} jobs were written and {len(rows)} of them are there")
        events, lines = self._read(LEGACY.legacy_events, ranges), self._read(LEGACY.legacy_lines, ranges)
        event = line = 0
        all_found = []
        sealed = [SealedColumns._make(row[:_SEALED]) for row in rows]
        for job, row, columns in zip(batch, rows, sealed, strict=True):
            next_event, next_line = event + job.source.event_count, line + job.line_count
            found = pack_rows(
                row[_SEALED:] if columns.row_id == job.row_id else (),
                _values_of_job(events[event:next_event], job.row_id),
                _values_of_job(lines[line:next_line], job.row_id),
            )
            if found != job.source.packed:
                raise _verification_failed(f"job {job.source.job_id} is not in the database as it is in its files")
            all_found.append(found)
            event, line = next_event, next_line
        if event != len(events) or line != len(lines):
            raise _verification_failed(
                f"{event} events and {line} lines were written; {len(events)} and {len(lines)} are there"
            )
        self._check_secrets([job.source for job in batch], sealed)
        self._add_to_digests(b"".join([job.source.packed for job in batch]), b"".join(all_found))
        self._new += len(batch)

    def check_updated(self, row_id: int, source: NormalizedJob) -> None:
        """Read an existing job back and compare its record and logs, without changes that were made here since.

        Raises:
            StorageFailed: its record or its logs are not as they are in its files.
        """
        tx = self._tx
        stored = source.unpack_values()
        values = tx.one(LEGACY.legacy_jobs, first=row_id, last=row_id)
        if values is None:
            raise _verification_failed(f"job {source.job_id} no longer exists")
        row = JobRow(*values)
        record = record_from_row(row, self._vault)
        wanted, found = stored.record(source.token, source.password).fingerprint(), record.fingerprint()
        self._add_to_digests(wanted, found)
        if wanted != found:
            raise _verification_failed(f"job {row.job_id} is not in the database as it is in its files")
        of_job = [SeqRange(row_id, row_id)]
        events = [EventValues._make(each) for each in _values_of_job(self._read(LEGACY.legacy_events, of_job), row_id)]
        lines = [LineValues._make(each) for each in _values_of_job(self._read(LEGACY.legacy_lines, of_job), row_id)]
        forms = stored.origin.forms
        digests = (forms.event_digest or b"", forms.audit_digest or b"")
        if row.forms != forms or log_digests(row, record, events, lines) != digests:
            raise _verification_failed(f"the logs of job {row.job_id} are not in the database as they are in its files")
        if source.state:
            self._check_state(source)

    def finish(self) -> None:
        """Compare the digests and the number of jobs.

        Raises:
            StorageFailed: the digests or the number of jobs differ; the transaction must be rolled back.
        """
        if self._from_files.digest() != self._from_database.digest():
            raise _verification_failed("the digest over all jobs is not that of the files")
        count = count_jobs(self._tx)
        if count != self.jobs_before + self._new:
            raise _verification_failed(f"there are {count} jobs, not {self.jobs_before} and {self._new} new ones")

    def _add_to_digests(self, from_files: bytes, from_database: bytes) -> None:
        self._from_files.update(from_files)
        self._from_database.update(from_database)

    def _read(self, statement: Statement, ranges: Sequence[SeqRange]) -> list[Row]:
        """Return the rows of ranges of row ids; on a server, other writers' jobs may be between them."""
        return list(chain.from_iterable(self._tx.all(statement, first=first, last=last) for first, last in ranges))

    def _check_secrets(self, sources: Sequence[NormalizedJob], rows: Sequence[SealedColumns]) -> None:
        """Compare the tokens and passwords of jobs with those of their rows, in the same order."""
        sealed = []
        for row, source in zip(rows, sources, strict=True):
            if row.sealed_token is not None:
                sealed.append((row.sealed_token, token_binding(source.job_id, row.kid)))
        for row, source in zip(rows, sources, strict=True):
            if row.sealed_password is not None:
                sealed.append((row.sealed_password, password_binding(source.job_id)))
        found = iter(self._vault.unseal_many(sealed)) if sealed else iter(())
        tokens = [None if row.sealed_token is None else next(found) for row in rows]
        passwords = [None if row.sealed_password is None else next(found) for row in rows]
        for source, token, password in zip(sources, tokens, passwords, strict=True):
            if source.token != token or source.password != password:
                raise _verification_failed(
                    f"a secret of job {source.job_id} is not in the database as it is in its files"
                )
            if source.state:
                self._check_state(source)

    def _check_state(self, source: NormalizedJob) -> None:
        row = find_job(self._tx, source.job_id)
        if row is None or newer_state_reason(source.state, database_state(self._tx, row)):
            raise _verification_failed(
                f"the {STATE_FIELD} of job {source.job_id} is not in the database as it is in its file"
            )


def _values_of_job(rows: Sequence[Row], row_id: int) -> list[tuple[Json, ...]]:
    """Return a job's events or lines without their first column, which is the job's row id."""
    return [row[1:] for row in rows if row[0] == row_id]


def _verification_failed(what: str) -> StorageFailed:
    return StorageFailed(
        f"the import was rolled back: {what}. Nothing was written and the files are as they were",
        advice="check the disk, run 'jobdb doctor --full', and report this with the file",
    )
