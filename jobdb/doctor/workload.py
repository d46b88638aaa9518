"""The checks of the work: leases, limits, permissions, outbox, subscribers, refusals, clock, and a restore's tokens.

Called by ``doctor.diagnose``; calls an open registry and reads it with its own statements.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from ..core.authenticity import CLOCK_SLACK_MS
from ..engines.statements import Statement, StatementSet
from ..engines.store import Row, Transaction
from ..errors import UnknownJob
from ..operations.restored_file import RESTORE_NOTE, parse_restore_note
from ..registry import Registry
from ..system.durations import format_duration
from .findings import DoctorReport


class WorkloadStatements(StatementSet):
    """The statements of ``workload.sql``."""

    doctor_expired_leases: Statement
    doctor_overdue: Statement
    doctor_overdue_imports: Statement
    doctor_stuck_jobs: Statement
    doctor_permission: Statement
    doctor_relay: Statement
    doctor_handler_lag: Statement
    doctor_subscriber_lag: Statement
    doctor_latest_update: Statement
    doctor_refusals: Statement


WORKLOAD = WorkloadStatements(Path(__file__).with_name("workload.sql"))

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_RELAY_GRACE_MS = _MINUTE_MS
_OLD_OUTBOX_MS = 5 * _MINUTE_MS
_LARGE_OUTBOX = 10_000
_SLOW_HANDLER_MS = 10 * _MINUTE_MS
_RECENT_MS = 7 * _DAY_MS


class ExpiredLeases(NamedTuple):
    """Expired leases that were not reaped: their number, and when the oldest expired (Unix milliseconds)."""

    leases: int
    oldest_ms: int | None


class StuckJobs(NamedTuple):
    """Silent running jobs that neither a lease nor a limit will end: their number, and the id of one."""

    jobs: int
    example: str | None


class PermissionRequests(NamedTuple):
    """Jobs that wait for a person: their number, the start of the longest wait (Unix milliseconds), the id of one."""

    jobs: int
    oldest_ms: int | None
    example: str | None


class Lag(NamedTuple):
    """A subscriber that is behind: the number of events and of jobs, and the id of one of the jobs."""

    subscriber: str
    jobs: int
    events: int
    example: str


def check_workload(report: DoctorReport, registry: Registry, *, now: int) -> None:
    """Check the state of the work.

    Args:
        report: takes the findings.
        registry: the open registry.
        now: Unix time in milliseconds.
    """
    _check_jobs(report, registry, now)
    _check_outbox(report, registry, now)
    _check_subscribers(report, registry, now)
    _check_refusals(report, registry, now)
    _check_clock(report, registry, now)
    _check_restore(report, registry, now)


def _check_jobs(report: DoctorReport, registry: Registry, now: int) -> None:
    with registry.store.read() as tx:
        expired = ExpiredLeases._make(_aggregates(tx, WORKLOAD.doctor_expired_leases, now=now))
        (overdue,) = _aggregates(tx, WORKLOAD.doctor_overdue, now=now)
        (imported,) = _aggregates(tx, WORKLOAD.doctor_overdue_imports, now=now)
        stuck = StuckJobs._make(_aggregates(tx, WORKLOAD.doctor_stuck_jobs, before=now - _HOUR_MS))
        requests = PermissionRequests._make(_aggregates(tx, WORKLOAD.doctor_permission))
    # reap cannot be undone, and an imported job may still be worked on by an agent that does not know this database.
    fix_command = f"{report.command} list --status running" if imported else f"{report.command} reap"
    first = "; look at the imported ones first: 'reap' ends them too" if imported else ""
    if expired.oldest_ms is not None:
        oldest = _age(now - expired.oldest_ms)
        report.warn("leases", f"{expired.leases} expired, the oldest {oldest} ago{first}", fix_command)
    else:
        report.passed("leases", "no expired lease")
    if overdue:
        agents_note = f", {imported} of them imported, whose agents may still be at work" if imported else ""
        report.warn(
            "time limits", f"{overdue} running jobs are past their time limits{agents_note}{first}", fix_command
        )
    else:
        report.passed("time limits", "no running job is past its limits")
    if stuck.example is not None:
        report.warn(
            "stuck jobs",
            f"{stuck.jobs} running jobs have neither lease nor limits and were silent for an hour: nothing ends them "
            f"if their worker is dead; such as {stuck.example}",
            f"{report.command} cancel {shlex.quote(stuck.example)}",
        )
    else:
        report.passed("stuck jobs", "every silent job has a lease or a limit that ends it")
    if requests.example is not None:
        waited = f", the longest for {_age(now - requests.oldest_ms)}" if requests.oldest_ms else ""
        report.warn(
            "permissions",
            f"{requests.jobs} jobs wait for a person{waited}",
            f"{report.command} show {shlex.quote(requests.example)}",
        )
    else:
        report.passed("permissions", "no job waits for a person")


def _check_outbox(report: DoctorReport, registry: Registry, now: int) -> None:
    waiting, oldest = registry.engine.outbox_size()
    with registry.store.read() as tx:
        (relays,) = _aggregates(tx, WORKLOAD.doctor_relay, now=now, latest=now + CLOCK_SLACK_MS)
    if not waiting or oldest is None:
        report.passed("outbox", "empty" + ("; a relay is running" if relays else ""))
        return
    age = now - oldest
    summary = f"{waiting} events wait for the broker, the oldest for {_age(age)}"
    fix_command = f"{report.command} relay --once"
    if not relays and age > _RELAY_GRACE_MS:
        report.warn("outbox", f"{summary}, and no relay is running", fix_command)
    elif age > _OLD_OUTBOX_MS or waiting > _LARGE_OUTBOX:
        report.warn("outbox", f"{summary}, although a relay is running: its broker is away or slow", fix_command)
    else:
        report.passed("outbox", summary)


def _check_subscribers(report: DoctorReport, registry: Registry, now: int) -> None:
    before = now - _SLOW_HANDLER_MS
    with registry.store.read() as tx:
        unhandled = [Lag._make(row) for row in tx.all(WORKLOAD.doctor_handler_lag, before=before)]
        unseen = [
            Lag._make(row) for row in tx.all(WORKLOAD.doctor_subscriber_lag, before=before, since=now - _RECENT_MS)
        ]
    again = "; start it again, or handle them by printing them with this command"
    for lag in unhandled:
        report.warn(
            "subscribers",
            f"{lag.subscriber} has accepted {int(lag.events)} events of {lag.jobs} jobs that its handler has not "
            f"finished{again}",
            _catch_up_command(report, lag),
        )
    for lag in unseen:
        report.warn(
            "subscribers",
            f"{lag.subscriber} has not seen the last {int(lag.events)} events of {lag.jobs} jobs{again}",
            _catch_up_command(report, lag),
        )
    if not unhandled and not unseen:
        report.passed("subscribers", "none is behind")


def _catch_up_command(report: DoctorReport, lag: Lag) -> str:
    job, subscriber = shlex.quote(lag.example), shlex.quote(lag.subscriber)
    return f"{report.command} subscribe {job} --subscriber {subscriber} --idle-timeout-sec 1"


def _check_refusals(report: DoctorReport, registry: Registry, now: int) -> None:
    with registry.store.read() as tx:
        refused = tx.all(WORKLOAD.doctor_refusals, since=now - _DAY_MS)
    if refused:
        listed = ", ".join(f"{int(count)} {verdict}" for verdict, count, _last in refused)
        report.warn(
            "refusals",
            f"events were refused in the last day: {listed}; a replay, a forgery, or an agent with an old token",
            f"{report.command} query 'SELECT * FROM v_verdicts ORDER BY last_at DESC'",
        )
    else:
        report.passed("refusals", "no forged or replayed event in the last day")


def _check_clock(report: DoctorReport, registry: Registry, now: int) -> None:
    with registry.store.read() as tx:
        (latest,) = _aggregates(tx, WORKLOAD.doctor_latest_update)
    if latest is not None and latest > now + CLOCK_SLACK_MS:
        report.fail(
            "clock",
            f"the newest record is {_age(latest - now)} in the future: the clock of this host, or of one that wrote, "
            "is wrong; correct it on every host, and then what was recorded meanwhile with doctor --fix",
            "timedatectl set-ntp true",
        )
    else:
        report.passed("clock", "no record is from the future")


def _check_restore(report: DoctorReport, registry: Registry, now: int) -> None:
    """Report tokens that had been revoked and that a restore from an older backup has made valid again."""
    note = parse_restore_note(registry.engine.setting(RESTORE_NOTE))
    if note is None:
        return
    when = f"restored from a backup {_age(now - note.at_ms)} ago"
    valid = [(job, kid) for job, kid in note.valid_again if _is_valid(registry, job, kid)]
    if valid:
        job, kid = valid[0]
        report.warn(
            "restore",
            f"{when}: {len(valid)} tokens that had been revoked or rotated are valid again, such as key {kid} of {job}",
            f"{report.command} token revoke {shlex.quote(job)} {kid}",
        )
    elif note.known:
        report.passed("restore", f"{when}; no token that had been revoked is valid")
    else:
        report.passed("restore", f"{when}; which tokens had been revoked since that backup is not known")


def _aggregates(tx: Transaction, statement: Statement, **parameters: int) -> Row:
    """Return the single row of a statement that only aggregates."""
    row = tx.one(statement, **parameters)
    assert row is not None  # aggregates over no rows still return a row
    return row


def _age(ms: int) -> str:
    return format_duration(ms / 1000)


def _is_valid(registry: Registry, job: str, kid: int) -> bool:
    try:
        return any(token.kid == kid and token.state in ("current", "overlap") for token in registry.tokens.list(job))
    except UnknownJob:
        return False
