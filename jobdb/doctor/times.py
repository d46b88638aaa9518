"""What was recorded while a clock was ahead: ends that never come, and moments that have not been yet.

Everything here is borne by the verbs (a lease that ends later than it can is void, limits count from now), but for
what only waits: a finished job that is not old enough to be pruned, an order by time. ``doctor --fix`` puts such
moments to now. It believes the clock of the present: on a host whose own clock is behind it must not be run.
"""

from __future__ import annotations

from pathlib import Path

from ..registry import Registry
from .findings import Report

_STATEMENTS = Path(__file__).with_suffix(".sql")
_REPAIRS = (
    "times_fix_job_leases",
    "times_fix_named_leases",
    "times_fix_overlaps",
    "times_fix_jobs",
    "times_fix_events",
    "times_fix_subscriptions",
    "times_fix_verdicts",
    "times_fix_refusals",
)


def check_times(report: Report, registry: Registry, *, fix: bool) -> None:
    """Report ends and moments that are later than they can be; with ``fix`` put them to now first."""
    store = registry.engine.store
    store.learn(_STATEMENTS)
    repaired = 0
    if fix:
        with store.write() as tx:
            repaired = sum(tx.run(name, now=tx.now_ms) for name in _REPAIRS)
    with store.read() as tx:
        now = tx.now_ms
        counts = {
            "leases of jobs": tx.one("times_job_leases", now=now),
            "named leases": tx.one("times_named_leases", now=now),
            "overlaps of tokens": tx.one("times_overlaps", now=now),
            "jobs": tx.one("times_jobs", now=now),
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
        report.good("times", f"no end and no moment is later than it can be{done}")
