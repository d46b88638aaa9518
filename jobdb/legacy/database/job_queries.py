"""The queries for job rows: one, all, and their number.

Called by the importer, its verification, the exporter and the drop-in module, inside their transactions.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...engines.store import Transaction
from .job_row import JobRow
from .statements import LEGACY

_PAGE = 100


def find_job(tx: Transaction, job_id: str) -> JobRow | None:
    """Return the row of a job, or None if it is not in the database."""
    row = tx.one(LEGACY.legacy_job, job_id=job_id)
    return None if row is None else JobRow(*row)


def all_jobs(tx: Transaction) -> Iterator[JobRow]:
    """Yield the row of every job, in the order in which they were recorded, in bounded memory."""
    after = 0
    while ids := [row_id for (row_id,) in tx.all(LEGACY.legacy_page, after=after, limit=_PAGE)]:
        for row in tx.all(LEGACY.legacy_jobs, first=ids[0], last=ids[-1]):
            yield JobRow(*row)
        after = ids[-1]


def count_jobs(tx: Transaction) -> int:
    """Return the number of jobs."""
    row = tx.one(LEGACY.legacy_count_jobs)
    count: int = row[0] if row else 0
    return count
