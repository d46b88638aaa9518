"""The doctor: checks a registry and its environment; one finding per check, with the command that fixes it.

Called by ``jobdb doctor``; calls the file system, then an open registry. It opens no file directly while a connection
is open, changes no data unless requested to fix times, creates no key, and does not raise what it finds: a database
that cannot be opened is a finding. (Opening has SQLite's usual effects: it rolls back the transaction of a dead writer
and copies the WAL as far as possible.)
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable

from ..crypto.vault import Vault
from ..errors import InvalidInput, JobdbError
from ..filesystem.mounts import read_mounts
from ..filesystem.placement import Placement, placement_for, refuse_mounted_file
from ..model.times import now_ms
from ..registry import Registry
from ..urls import DatabaseUrl, default_url, parse_url
from .database import check_database
from .files import check_file, check_filesystem, check_leftovers, journal_age_sec
from .findings import DoctorReport, Finding
from .timestamps import check_timestamps
from .workload import check_workload

__all__ = ["DoctorReport", "Finding", "diagnose"]

_BUSY_TIMEOUT_SEC = 2.0


def diagnose(
    url: DatabaseUrl,
    *,
    full: bool = False,
    fix: bool = False,
    clock: Callable[[], int] = now_ms,
    placement_of: Callable[[str], Placement] = placement_for,
) -> DoctorReport:
    """Check a registry: its file and folder, the database, its times, and the state of the work.

    Args:
        url: the URL of the registry.
        full: also compare indexes with tables and follow every reference, which takes time in proportion to the size.
        fix: correct times in the future, which were recorded while a clock was ahead; change nothing else.
        clock: returns the Unix time in milliseconds.
        placement_of: returns the placement of a folder: its file system, and the journal that it supports.

    Returns:
        The findings, in the order in which to fix them. Problems are findings, never raised.

    Example:
        report = diagnose(parse_url("jobs.db"))
        for finding in report.findings:
            if finding.level != "ok":
                print(finding.check, finding.message, finding.fix_command)
    """
    report = DoctorReport(str(url), command_for(url))
    left_journal_age_sec = None
    if url.path is not None:
        file = url.path.resolve()  # SQLite keeps the journal next to the file that a link points to
        placement = refuse_mounted_file(placement_of(str(file.parent)), str(file), read_mounts())
        check_filesystem(report, url.path, placement)
        if not check_file(report, url.path, placement):
            return report
        left_journal_age_sec = journal_age_sec(url.path)  # now: opening the database rolls it back
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each warning on opening is a separate finding here
            registry = Registry.open(
                url.text, busy_timeout_sec=_BUSY_TIMEOUT_SEC, vault=Vault.open(create=False), clock=clock
            )
    except (JobdbError, OSError) as error:
        report.fail_on("open", error)
        return report
    try:
        if check_database(report, registry, full=full):
            check_timestamps(report, registry, fix=fix)
            check_workload(report, registry, now=clock())
    except JobdbError as error:
        report.fail_on("reading", error, fix_command=f"{report.command} doctor --full")
    finally:
        registry.close(checkpoint=False)
    if url.path is not None:
        check_leftovers(report, url.path, left_journal_age_sec)
    return report


def command_for(url: DatabaseUrl) -> str:
    """Return the command that addresses this registry: plain ``jobdb`` for the default one."""
    try:
        if parse_url(default_url()) == url:
            return "jobdb"
    except InvalidInput:
        pass
    return f"jobdb --db {shlex.quote(str(url.path) if url.path is not None else str(url))}"
