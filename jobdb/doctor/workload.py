"""What can be told of the work: leases, limits, permissions, outbox, subscribers, refusals, clock."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from ..engines.statements import Statement, StatementSet
from ..errors import UnknownJob
from ..operations.restore import RESTORE_NOTE
from ..registry import Registry
from .findings import Report, format_age


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


STATE = WorkloadStatements(Path(__file__).with_name("workload.sql"))


_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_RELAY_GRACE_MS = _MINUTE_MS
_OLD_OUTBOX_MS = 5 * _MINUTE_MS
_LARGE_OUTBOX = 10_000
_SLOW_HANDLER_MS = 10 * _MINUTE_MS
_CLOCK_TOLERANCE_MS = _MINUTE_MS


def check_workload(report: Report, registry: Registry, *, now: int) -> None:
    """The work's state."""
    _check_jobs(report, registry, now)
    _check_outbox(report, registry, now)
    _check_subscribers(report, registry, now)
    _check_refusals(report, registry, now)
    _check_clock(report, registry, now)
    _check_restore(report, registry, now)


def _check_jobs(report: Report, registry: Registry, now: int) -> None:
    with registry.engine.store.read() as tx:
        expired, oldest = tx.one(STATE.doctor_expired_leases, now=now) or (0, None)
        overdue = (tx.one(STATE.doctor_overdue, now=now) or (0,))[0]
        imported = (tx.one(STATE.doctor_overdue_imports, now=now) or (0,))[0]
        endless, silent = tx.one(STATE.doctor_stuck_jobs, before=now - _HOUR_MS) or (0, None)
        asking, since, example = tx.one(STATE.doctor_permission) or (0, None, None)
    # What reap ends stays ended. An imported job may be somebody's work who knows nothing of this database.
    look = f"{report.command} list --status running"
    fix_command = look if imported else f"{report.command} reap"
    first = "; look at the imported ones first: 'reap' ends them too" if imported else ""
    if expired:
        report.warn("leases", f"{expired} expired, the oldest {format_age(now - oldest)} ago{first}", fix_command)
    else:
        report.passed("leases", "none has expired unnoticed")
    if overdue:
        came = f", {imported} of them imported, whose agents may still be at work" if imported else ""
        report.warn("time limits", f"{overdue} running jobs are past their time limits{came}{first}", fix_command)
    else:
        report.passed("time limits", "no running job is past its limits")
    if endless:
        report.warn(
            "stuck jobs",
            f"{endless} running jobs have neither lease nor limits and were silent for an hour: nothing ends them if "
            f"their worker is dead; such as {silent}",
            f"{report.command} cancel {shlex.quote(silent)}",
        )
    else:
        report.passed("stuck jobs", "every silent job has a lease or a limit that ends it")
    if asking:
        waited = f", the longest for {format_age(now - since)}" if since else ""
        report.warn(
            "permissions", f"{asking} jobs wait for a person{waited}", f"{report.command} show {shlex.quote(example)}"
        )
    else:
        report.passed("permissions", "no job waits for a person")


def _check_outbox(report: Report, registry: Registry, now: int) -> None:
    waiting, oldest = registry.engine.outbox_size()
    with registry.engine.store.read() as tx:
        relayed = bool((tx.one(STATE.doctor_relay, now=now) or (0,))[0])
    if not waiting or oldest is None:
        report.passed("outbox", "empty" + ("; a relay is at work" if relayed else ""))
        return
    age = now - oldest
    since = f"{waiting} events wait for the broker, the oldest for {format_age(age)}"
    fix_command = f"{report.command} relay --once"
    if not relayed and age > _RELAY_GRACE_MS:
        report.warn("outbox", f"{since}, and no relay is running", fix_command)
    elif age > _OLD_OUTBOX_MS or waiting > _LARGE_OUTBOX:
        report.warn("outbox", f"{since}, although a relay is running: its broker is away or slow", fix_command)
    else:
        report.passed("outbox", since)


def _check_subscribers(report: Report, registry: Registry, now: int) -> None:
    before = now - _SLOW_HANDLER_MS
    with registry.engine.store.read() as tx:
        unhandled = tx.all(STATE.doctor_handler_lag, before=before)
        unseen = tx.all(STATE.doctor_subscriber_lag, before=before, since=now - 7 * _DAY_MS)
    again = "; start it again, or let this handle them by printing them"
    for subscriber, jobs, events, job in unhandled:
        report.warn(
            "subscribers",
            f"{subscriber} has accepted {int(events)} events of {jobs} jobs that its handler has not done{again}",
            _catch_up_command(report, job, subscriber),
        )
    for subscriber, jobs, events, job in unseen:
        report.warn(
            "subscribers",
            f"{subscriber} has not seen the last {int(events)} events of {jobs} jobs{again}",
            _catch_up_command(report, job, subscriber),
        )
    if not unhandled and not unseen:
        report.passed("subscribers", "none is behind")


def _catch_up_command(report: Report, job: str, subscriber: str) -> str:
    return f"{report.command} subscribe {shlex.quote(job)} --subscriber {shlex.quote(subscriber)} --idle-timeout-sec 1"


def _check_refusals(report: Report, registry: Registry, now: int) -> None:
    with registry.engine.store.read() as tx:
        refused = tx.all(STATE.doctor_refusals, since=now - _DAY_MS)
    if refused:
        listed = ", ".join(f"{int(count)} {verdict}" for verdict, count, _last in refused)
        report.warn(
            "refusals",
            f"in the last day events were refused: {listed}; a replay, a forgery, or an agent with an old token",
            f"{report.command} query 'SELECT * FROM v_verdicts ORDER BY last_at DESC'",
        )
    else:
        report.passed("refusals", "no forged or replayed event in the last day")


def _check_clock(report: Report, registry: Registry, now: int) -> None:
    with registry.engine.store.read() as tx:
        latest = (tx.one(STATE.doctor_latest_update) or (None,))[0]
    if latest is not None and latest > now + _CLOCK_TOLERANCE_MS:
        report.fail(
            "clock",
            f"the newest record is {format_age(latest - now)} in the future: the clock of this host, or of one that "
            f"wrote, is "
            "wrong; set it right on every host. What was recorded meanwhile is put right with doctor --fix then",
            "timedatectl set-ntp true",
        )
    else:
        report.passed("clock", "no record is from the future")


def _check_restore(report: Report, registry: Registry, now: int) -> None:
    """Tokens that had been revoked before a backup from an earlier time was put in place are valid again."""
    try:
        note = json.loads(registry.engine.setting(RESTORE_NOTE) or "null")
        at_ms, known, tokens = (
            int(note["at_ms"]),
            bool(note["known"]),
            [(str(job), int(kid)) for job, kid in note["valid_again"]],
        )
    except (KeyError, TypeError, ValueError):
        return
    when = f"restored from a backup {format_age(max(0, now - at_ms))} ago"
    valid = [(job, kid) for job, kid in tokens if _is_valid(registry, job, kid)]
    if valid:
        job, kid = valid[0]
        report.warn(
            "restore",
            f"{when}: {len(valid)} tokens that had been revoked or rotated are valid again, such as key {kid} of {job}",
            f"{report.command} token revoke {shlex.quote(job)} {kid}",
        )
    elif known:
        report.passed("restore", f"{when}; no token that had been revoked is valid")
    else:
        report.passed("restore", f"{when}; which tokens had been revoked since that backup is not known")


def _is_valid(registry: Registry, job: str, kid: int) -> bool:
    try:
        return any(token.kid == kid and token.state in ("current", "overlap") for token in registry.tokens.list(job))
    except UnknownJob:
        return False
