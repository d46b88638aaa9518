"""The proof before the commit: everything that an import wrote is read back and compared with what the files held.

Called by the writer after each portion and by the importer at the end, inside the import's transaction. What is to be
stored of a job has been turned back into its record and logs and compared with the files, when they were read
(`ready`). Here it is compared with what is stored: of a new job every column of every row, of one that was there its
record and logs. At the end the digest over all new jobs, of the files and of the database, must be the same, and the
number of jobs too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter

from ...crypto.vault import Vault
from ...engines.sql.rows import password_binding, token_binding
from ...engines.statements import Statement
from ...engines.store import Row, Transaction
from ...errors import StorageFailed
from ..database.job_row import JobRow, record_from_row
from ..database.job_state import database_state
from ..database.statements import LEGACY
from ..format.jobdb_state import STATE_FIELD, newer_state_reason
from .normalization import STORED_COLUMNS, NormalizedJob, log_digests, pack_values

_KID = 3 + STORED_COLUMNS.index("kid")
"""In a row of ``legacy_written``: the first of that name, which is the job's."""

WrittenJob = tuple[int, NormalizedJob, int]
"""A job's number, what its files hold, and how many lines that are no events."""


class Verification:
    """Compares what was written with what was read, portion by portion, and counts."""

    def __init__(self, tx: Transaction, vault: Vault) -> None:
        self._tx = tx
        self._vault = vault
        self._jobs_before = self._count_jobs()
        self._new = 0
        self._from_files = hashlib.sha256()
        self._from_database = hashlib.sha256()

    @property
    def jobs_before(self) -> int:
        """How many jobs there were before the import."""
        return self._jobs_before

    def check_new(self, batch: Sequence[WrittenJob]) -> None:
        """Reads new jobs back.

        Raises:
            StorageFailed: a job is not in the database as it is in its files; the transaction must be rolled back.
        """
        batch = sorted(batch, key=itemgetter(0))
        ranges = list(_ranges([job for job, _, _ in batch]))
        rows = self._read(LEGACY.legacy_new_job_rows, ranges)
        if len(rows) != len(batch):
            raise _verification_failed(f"{len(batch)} jobs were written and {len(rows)} of them are there")
        events, lines = self._read(LEGACY.legacy_events, ranges), self._read(LEGACY.legacy_lines_of_range, ranges)
        event = line = 0
        all_found = []
        for (job, source, its_lines), row in zip(batch, rows, strict=True):
            its_events = source.events
            found = pack_values(
                row[3:] if row[0] == job else (),
                [each[1:] for each in events[event : event + its_events] if each[0] == job],
                [each[1:] for each in lines[line : line + its_lines] if each[0] == job] if its_lines else [],
            )
            if found != source.stored:
                raise _verification_failed(f"job {source.job_id} is not in the database as it is in its files")
            all_found.append(found)
            event += its_events
            line += its_lines
        if event != len(events) or line != len(lines):
            raise _verification_failed(
                f"{event} events and {line} lines were written; {len(events)} and {len(lines)} are there"
            )
        self._check_secrets([source for _, source, _ in batch], rows)
        self._from_files.update(b"".join([source.stored for _, source, _ in batch]))
        self._from_database.update(b"".join(all_found))
        self._new += len(batch)

    def check_updated(self, number: int, source: NormalizedJob) -> None:
        """Reads a job back that was there before. What has happened to it since it came is not in its files.

        Raises:
            StorageFailed: its record or its logs are not as they are in its files.
        """
        tx = self._tx
        stored = source.unpack_values()
        values = tx.one(LEGACY.legacy_jobs, first=number, last=number)
        if values is None:
            raise _verification_failed(f"job {source.job_id} is not there any more")
        row = JobRow(*values)
        record = record_from_row(row, self._vault)
        wanted, found = stored.record(source.token, source.password).fingerprint(), record.fingerprint()
        self._from_files.update(wanted)
        self._from_database.update(found)
        if wanted != found:
            raise _verification_failed(f"job {row.job_id} is not in the database as it is in its files")
        origin = (None, None, None, None, row.event_form, row.event_digest, row.audit_form, row.audit_digest)
        events = [event[1:] for event in tx.all(LEGACY.legacy_events, first=number, last=number)]
        lines = tx.all(LEGACY.legacy_lines, job=number)
        digests = (stored.event_digest or b"", stored.audit_digest or b"")
        if origin[4:] != stored.origin[4:] or log_digests(record, origin, events, lines) != digests:
            raise _verification_failed(f"the logs of job {row.job_id} are not in the database as they are in its files")
        if source.state:
            self._check_state(source)

    def finish(self) -> None:
        """Compares the whole.

        Raises:
            StorageFailed: the digests or the number of jobs differ; the transaction must be rolled back.
        """
        if self._from_files.digest() != self._from_database.digest():
            raise _verification_failed("the digest over all jobs is not that of the files")
        if self._count_jobs() != self._jobs_before + self._new:
            raise _verification_failed(
                f"there are {self._count_jobs()} jobs, not {self._jobs_before} and {self._new} new ones"
            )

    def _count_jobs(self) -> int:
        row = self._tx.one(LEGACY.legacy_count_jobs)
        assert row is not None
        count: int = row[0]
        return count

    def _read(self, statement: Statement, ranges: list[tuple[int, int]]) -> list[Row]:
        return list(chain.from_iterable(self._tx.all(statement, first=first, last=last) for first, last in ranges))

    def _check_secrets(self, sources: Sequence[NormalizedJob], rows: Sequence[Row]) -> None:
        """The tokens and passwords of jobs and of their rows, in the same order."""
        sealed = [(row[1], token_binding(row[3], row[_KID])) for row in rows if row[1] is not None]
        sealed += [(row[2], password_binding(row[3])) for row in rows if row[2] is not None]
        found = iter(self._vault.unseal_many(sealed)) if sealed else iter(())
        tokens = [None if row[1] is None else next(found) for row in rows]
        passwords = [None if row[2] is None else next(found) for row in rows]
        for source, token, password in zip(sources, tokens, passwords, strict=True):
            if source.token != token or source.password != password:
                raise _verification_failed(
                    f"a secret of job {source.job_id} is not in the database as it is in its files"
                )
            if source.state:
                self._check_state(source)

    def _check_state(self, source: NormalizedJob) -> None:
        row = self._tx.one(LEGACY.legacy_job, job_id=source.job_id)
        if row is None or newer_state_reason(source.state, database_state(self._tx, JobRow(*row))):
            raise _verification_failed(
                f"the {STATE_FIELD} of job {source.job_id} is not in the database as it is in its file"
            )


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges without gaps: other writers' jobs may lie between them on a server."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def _verification_failed(what: str) -> StorageFailed:
    return StorageFailed(
        f"the import was taken back: {what}. Nothing was written and the files are as they were. Check the disk, run "
        "'jobdb doctor --full', and report this with the file"
    )
