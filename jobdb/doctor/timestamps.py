"""What was recorded while a clock was ahead: ends that never come, and moments that have not been yet.

Everything here is borne by the verbs (a lease that ends later than it can is void, limits count from now), but for
what only waits: a finished job that is not old enough to be pruned, an order by time. ``doctor --fix`` puts such
moments to now. It believes the clock of the present: on a host whose own clock is behind it must not be run.
"""

from __future__ import annotations

from pathlib import Path

from ..engines.statements import Statement, StatementSet
from ..registry import Registry
from .findings import Report


class TimestampStatements(StatementSet):
    """The statements of ``timestamps.sql``."""

    times_job_leases: Statement
    times_named_leases: Statement
    times_overlaps: Statement
    times_jobs: Statement
    times_fix_job_leases: Statement
    times_fix_named_leases: Statement
    times_fix_overlaps: Statement
    times_fix_jobs: Statement
    times_fix_events: Statement
    times_fix_subscriptions: Statement
    times_fix_verdicts: Statement
    times_fix_refusals: Statement


TIMES = TimestampStatements(Path(__file__).with_name("timestamps.sql"))


_REPAIRS = (
    TIMES.times_fix_job_leases,
    TIMES.times_fix_named_leases,
    TIMES.times_fix_overlaps,
    TIMES.times_fix_jobs,
    TIMES.times_fix_events,
    TIMES.times_fix_subscriptions,
    TIMES.times_fix_verdicts,
    TIMES.times_fix_refusals,
)


def check_timestamps(report: Report, registry: Registry, *, fix: bool) -> None:
    """Report ends and moments that are later than they can be; with ``fix`` put them to now first."""
    store = registry.store
    repaired = 0
    if fix:
        with store.write() as tx:
            repaired = sum(tx.run(repair, now=tx.now_ms) for repair in _REPAIRS)
    with store.read() as tx:
        now = tx.now_ms
        counts = {
            "leases of jobs": tx.one(TIMES.times_job_leases, now=now),
            "named leases": tx.one(TIMES.times_named_leases, now=now),
            "overlaps of tokens": tx.one(TIMES.times_overlaps, now=now),
            "jobs": tx.one(TIMES.times_jobs, now=now),
        }
    found = [f"{row[0]} {what}" for what, row in counts.items() if row is not None and row[0]]
    done = f"; {repaired} rows were put right" if repaired else ""
    if found:
        report.warn(
            "times",
            f"{', '.join(found)} end or happened later than they can: a clock was ahead. Make sure that this host's is "
            f"right, then put them right{done}",
            f"{report.command} doctor --fix",
        )
    else:
        report.passed("times", f"no end and no moment is later than it can be{done}")
