"""What can be told of the work: leases, limits, permissions, outbox, subscribers, refusals, clock."""

from __future__ import annotations

from pathlib import Path

from ..registry import Registry
from .findings import Report

_STATEMENTS = Path(__file__).parent / "doctor.sql"
_OLD_OUTBOX_MS = 5 * 60_000
_SLOW_HANDLER_MS = 10 * 60_000
_CLOCK_SLACK_MS = 60_000
_DAY_MS = 86_400_000


def check_state(report: Report, registry: Registry, *, now: int) -> None:
    """The work's state, from one moment's view."""
    registry.engine.store.learn(_STATEMENTS)
    _check_jobs(report, registry, now)
    _check_outbox(report, registry, now)
    _check_subscribers(report, registry, now)
    _check_refusals(report, registry, now)
    _check_clock(report, registry, now)


def _check_jobs(report: Report, registry: Registry, now: int) -> None:
    with registry.engine.store.read() as tx:
        expired, oldest = tx.one("doctor_leases", now=now) or (0, None)
        overdue = (tx.one("doctor_overdue", now=now) or (0,))[0]
        endless = (tx.one("doctor_unleased") or (0,))[0]
        asking, since, example = tx.one("doctor_permission") or (0, None, None)
    if expired:
        report.warn("leases", f"{expired} expired, the oldest {_ago(now - oldest)} ago", "jobdb reap")
    else:
        report.good("leases", "none has expired unnoticed")
    if overdue:
        report.warn("time limits", f"{overdue} running jobs are past their time limits", "jobdb reap")
    else:
        report.good("time limits", "no running job is past its limits")
    if endless:
        report.warn(
            "stuck jobs",
            f"{endless} running jobs have neither lease nor limits: nothing ends them if their worker dies",
            "jobdb list --status running; then jobdb cancel JOB, or publish what became of it",
        )
    else:
        report.good("stuck jobs", "every running job has a lease or a limit")
    if asking:
        waited = f", the longest for {_ago(now - since)}" if since else ""
        report.warn("permissions", f"{asking} jobs wait for a person{waited}", f"jobdb show {example}")
    else:
        report.good("permissions", "no job waits for a person")


def _check_outbox(report: Report, registry: Registry, now: int) -> None:
    waiting, oldest = registry.engine.outbox_size()
    if waiting and oldest is not None and now - oldest > _OLD_OUTBOX_MS:
        report.warn(
            "outbox", f"{waiting} events wait for the broker, the oldest for {_ago(now - oldest)}", "jobdb relay --once"
        )
    else:
        report.good("outbox", f"{waiting} events wait for the broker" if waiting else "empty")


def _check_subscribers(report: Report, registry: Registry, now: int) -> None:
    with registry.engine.store.read() as tx:
        behind = tx.all("doctor_behind", before=now - _SLOW_HANDLER_MS)
    for subscriber, jobs, events in behind:
        report.warn(
            "subscribers",
            f"{subscriber} has accepted {int(events)} events of {jobs} jobs that its handler has not done",
            f"jobdb subscribe --subscriber {subscriber}",
        )
    if not behind:
        report.good("subscribers", "none is behind")


def _check_refusals(report: Report, registry: Registry, now: int) -> None:
    with registry.engine.store.read() as tx:
        refused = tx.all("doctor_refusals", since=now - _DAY_MS)
    if refused:
        listed = ", ".join(f"{int(count)} {verdict}" for verdict, count, _last in refused)
        report.warn("refusals", f"in the last day a job refused events: {listed}", "jobdb stats")
    else:
        report.good("refusals", "no forged or replayed event in the last day")


def _check_clock(report: Report, registry: Registry, now: int) -> None:
    with registry.engine.store.read() as tx:
        latest = (tx.one("doctor_future") or (None,))[0]
    if latest is not None and latest > now + _CLOCK_SLACK_MS:
        report.fail(
            "clock",
            f"the newest record is {_ago(latest - now)} in the future: a clock is or was wrong",
            "timedatectl status; set the clock right on every host that writes",
        )
    else:
        report.good("clock", "no record is from the future")


def _ago(ms: int) -> str:
    """A duration as a person says it."""
    seconds = max(0, ms // 1000)
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {word}"
    return f"{seconds} s"
