"""The check for times in the future: of leases, delays, workers, overlaps of tokens, jobs and records.

Called by ``doctor.diagnose``; calls an open registry. Verbs tolerate such times (a lease that began in the future is
void, limits count from now), but some effects remain: a finished job is pruned late, and an order by time is wrong.
``doctor --fix`` sets such times to now. It trusts this host's clock, so it must not be run on a host whose own clock is
behind.
"""

from __future__ import annotations

from pathlib import Path

from ..core.authenticity import CLOCK_SLACK_MS
from ..engines.statements import Statement, StatementSet
from ..engines.store import Transaction
from ..registry import Registry
from .findings import DoctorReport


class TimestampStatements(StatementSet):
    """The statements of ``timestamps.sql``."""

    times_job_leases: Statement
    times_delays: Statement
    times_workers: Statement
    times_named_leases: Statement
    times_overlaps: Statement
    times_jobs: Statement
    times_fix_job_leases: Statement
    times_fix_delays: Statement
    times_fix_workers: Statement
    times_fix_attempts: Statement
    times_fix_named_leases: Statement
    times_fix_overlaps: Statement
    times_fix_jobs: Statement
    times_fix_events: Statement
    times_fix_subscriptions: Statement
    times_fix_verdicts: Statement
    times_fix_refusals: Statement


TIMES = TimestampStatements(Path(__file__).with_name("timestamps.sql"))


def check_timestamps(report: DoctorReport, registry: Registry, *, fix: bool) -> None:
    """Report times that are further in the future than clocks may differ; with ``fix``, set them to now first."""
    store = registry.store
    repaired = 0
    if fix:
        with store.write() as tx:
            repaired = _repair(tx)
    with store.read() as tx:
        latest = tx.now_ms + CLOCK_SLACK_MS
        counts = {
            "leases of jobs": _count(tx, TIMES.times_job_leases, latest),
            "delays of jobs": _count(tx, TIMES.times_delays, latest),
            "workers": _count(tx, TIMES.times_workers, latest),
            "named leases": _count(tx, TIMES.times_named_leases, latest),
            "overlaps of tokens": _count(tx, TIMES.times_overlaps, latest),
            "jobs": _count(tx, TIMES.times_jobs, latest),
        }
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    done = f"; {repaired} rows were corrected" if repaired else ""
    if listed:
        report.warn(
            "times",
            f"{listed} have times in the future: a clock was ahead. Make sure that this host's clock is right, then "
            f"correct them{done}",
            f"{report.command} doctor --fix",
        )
    else:
        report.passed("times", f"no time is in the future{done}")


def _repair(tx: Transaction) -> int:
    """Set every time in the future to now; return the number of changed rows."""
    repairs = (
        TIMES.times_fix_job_leases,
        TIMES.times_fix_delays,
        TIMES.times_fix_workers,
        TIMES.times_fix_attempts,
        TIMES.times_fix_named_leases,
        TIMES.times_fix_overlaps,
        TIMES.times_fix_jobs,
        TIMES.times_fix_events,
        TIMES.times_fix_subscriptions,
        TIMES.times_fix_verdicts,
        TIMES.times_fix_refusals,
    )
    return sum(tx.run(repair, now=tx.now_ms, latest=tx.now_ms + CLOCK_SLACK_MS) for repair in repairs)


def _count(tx: Transaction, statement: Statement, latest: int) -> int:
    row = tx.one(statement, latest=latest)
    assert row is not None  # a count is always one row
    return int(row[0])
