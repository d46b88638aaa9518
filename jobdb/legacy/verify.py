"""The proof before the commit: everything that an import wrote is read back and compared with what the files held.

Called by the importer inside its transaction. While the import runs, a keyed digest of each job goes into a temporary
file, 41 bytes a job: over every field of its record and, for a new job, over all that was worked out from its logs
and over its events. At the end each job is rebuilt from the database as an export would write it, its logs included,
and the digests must be the same, each one and the digest over all of them; so must the number of jobs.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

from ..engines.sql.transaction import Row, Transaction
from ..errors import StorageFailed
from ..vault import Vault
from .layout import EntryKind
from .logs import JobLogs
from .records import LegacyRecord
from .rows import JobRow, derived, record_of
from .stored import stored_logs

Json = Any

_ENTRY = struct.Struct("<q?32s")
_PAGE = 500


class Verification:
    """Collects what was written, then checks it. The key is made anew each time: digests of secrets stay nowhere."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._key = os.urandom(32)
        self._written = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._all = hashlib.blake2b(key=self._key)
        self._count = 0

    def close(self) -> None:
        self._written.close()

    def expect_new(self, number: int, record: LegacyRecord, columns: dict[str, Json], logs: JobLogs) -> None:
        """Notes a new job, under its number in the database, with the columns that were worked out for it."""
        events = [(e.seq, e.event, e.attempt, e.recorded_ms, e.digest, e.text) for e in logs.events]
        self._expect(number, True, (record.fields(), derived(columns), events))

    def expect_updated(self, number: int, record: LegacyRecord) -> None:
        """Notes a job that was there before; what it has beyond its record is its own affair."""
        self._expect(number, False, (record.fields(), None, None))

    def check(self, tx: Transaction) -> None:
        """Reads everything back.

        Raises:
            StorageFailed: a job is not in the database as it is in the file. The transaction must be rolled back.
        """
        self._written.seek(0)
        checked = 0
        everything = hashlib.blake2b(key=self._key)
        while block := self._written.read(_ENTRY.size * _PAGE):
            expected = {number: (whole, digest) for number, whole, digest in _ENTRY.iter_unpack(block)}
            for row, events, lines in _stored_jobs(tx, sorted(expected)):
                whole, digest = expected[row.number]
                record = record_of(row, self._vault)
                facts = (record.fields(), derived(row), events) if whole else (record.fields(), None, None)
                actual = self._digest(facts)
                if actual != digest or not _logs_are_whole(row, record, events, lines):
                    raise verification_failed(f"job {row.job_id} is not in the database as it is in its files")
                checked += 1
            for number, (_, digest) in expected.items():
                everything.update(number.to_bytes(8, "little") + digest)
        if checked != self._count or everything.digest() != self._all.digest():
            raise verification_failed(f"{self._count} jobs were written and {checked} are there")

    def _expect(self, number: int, whole: bool, facts: tuple[Json, ...]) -> None:
        digest = self._digest(facts)
        self._written.write(_ENTRY.pack(number, whole, digest))
        self._all.update(number.to_bytes(8, "little") + digest)
        self._count += 1

    def _digest(self, facts: tuple[Json, ...]) -> bytes:
        # marshal, in the version without references, writes equal values of equal types as equal bytes.
        return hashlib.blake2b(marshal.dumps(facts, 2), key=self._key, digest_size=32).digest()


def _stored_jobs(tx: Transaction, numbers: list[int]) -> Iterator[tuple[JobRow, list[Row], list[Row]]]:
    """The jobs of these numbers, each with its events and kept lines; memory for one job at a time."""
    ranges = [(numbers[0], numbers[-1])]
    if numbers[-1] - numbers[0] > 4 * len(numbers):
        ranges = [(number, number) for number in numbers]
    wanted = set(numbers)
    for first, last in ranges:
        events = _Grouped(tx.iterate("legacy_events", first=first, last=last))
        lines = _Grouped(tx.iterate("legacy_lines_of_range", first=first, last=last))
        for values in tx.iterate("legacy_jobs", first=first, last=last):
            row = JobRow(*values)
            if row.number in wanted:
                yield row, events.of(row.number), lines.of(row.number)


class _Grouped:
    """Rows that begin with a job's number, in order of it, taken job by job."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def of(self, number: int) -> list[Row]:
        found: list[Row] = []
        row = self._next
        if row is None or row[0] > number:
            return found
        while row is not None and row[0] <= number:
            if row[0] == number:
                found.append(row[1:])
            row = next(self._rows, None)
        self._next = row
        return found


def _logs_are_whole(row: JobRow, record: LegacyRecord, events: list[Row], lines: list[Row]) -> bool:
    """Whether the logs, written again, have the digests of those that were read."""
    if row.event_digest is None and row.audit_digest is None:
        return True
    logs = stored_logs(row, record, {event[0]: event[-1] for event in events}, ((log, raw) for log, raw in lines))
    digests = {kind: hashlib.sha256(content).digest() for kind, content in logs.items()}
    audit = [EntryKind.AUDIT_LOG, EntryKind.AUDIT_META, EntryKind.AUDIT_STATUS]
    return (row.event_digest or b"", row.audit_digest or b"") == (
        digests.get(EntryKind.EVENT_LOG, b""),
        b"".join(digests.get(kind, b"") for kind in audit),
    )


def verification_failed(what: str) -> StorageFailed:
    """The error of an import that is not committed because it is not what the files hold."""
    return StorageFailed(
        f"the import was taken back: {what}. Nothing was written and the files are as they were. Check the disk, run "
        "'jobdb doctor --full', and report this with the file"
    )
