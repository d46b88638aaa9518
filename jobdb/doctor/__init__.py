"""Is all well? One line a check: ok, warn or fail, with the command that mends it.

Called by ``jobdb doctor``. It opens nothing by hand while a connection is open, changes no data unless asked to fix
times, makes no key, and never raises for what it finds: a database that cannot be opened is a finding. (What SQLite
does on every opening it does here too: it rolls back what a dead writer left, and copies the WAL as far as it can.)
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable

from ..crypto.vault import Vault
from ..errors import InvalidInput, JobdbError
from ..filesystem.mounts import read_mounts
from ..filesystem.placement import Placement, placement_for, refuse_mounted_file
from ..registry import Registry, now_ms
from ..urls import DatabaseUrl, default_url, parse_url
from .database import check_database
from .files import Leftovers, check_file, check_filesystem, check_leftovers
from .findings import Finding, Report, fix_command_for
from .timestamps import check_timestamps
from .workload import check_workload

__all__ = ["Finding", "Report", "examine"]

_SHORT_WAIT_SEC = 2.0


def examine(
    url: DatabaseUrl,
    *,
    full: bool = False,
    fix: bool = False,
    clock: Callable[[], int] = now_ms,
    placement_of: Callable[[str], Placement] = placement_for,
) -> Report:
    """Examines a registry.

    Args:
        url: where it is.
        full: also compare indexes with tables and follow every reference; takes time with the size.
        fix: put right what was recorded while a clock was ahead; nothing else is changed.
        clock: Unix time in milliseconds.
        placement_of: tells what file system a folder is on.

    Returns:
        The findings, in the order in which to mend them.
    """
    report = Report(str(url), command_for(url))
    leftovers = Leftovers()
    if url.path is not None:
        file = url.path.resolve()  # SQLite keeps the journal beside the file that a link leads to
        placement = refuse_mounted_file(placement_of(str(file.parent)), str(file), read_mounts())
        check_filesystem(report, url.path, placement)
        if not check_file(report, url.path, placement, leftovers):
            return report
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what opening warns of has a line of its own here
            registry = Registry.open(
                url.text, busy_timeout_sec=_SHORT_WAIT_SEC, vault=Vault.open(create=False), clock=clock
            )
    except (JobdbError, OSError) as error:
        report.fail("open", str(error), fix_command_for(report, error))
        return report
    try:
        if check_database(report, registry, full=full):
            check_timestamps(report, registry, fix=fix)
            check_workload(report, registry, now=clock())
    except JobdbError as error:
        report.fail("reading", str(error), fix_command_for(report, error) or f"{report.command} doctor --full")
    finally:
        registry.close(checkpoint=False)
    if url.path is not None:
        check_leftovers(report, url.path, leftovers)
    return report


def command_for(url: DatabaseUrl) -> str:
    """How to call the command line for this registry: plainly, where it is the default one."""
    try:
        if parse_url(default_url()) == url:
            return "jobdb"
    except InvalidInput:
        pass
    return f"jobdb --db {shlex.quote(str(url.path) if url.path is not None else str(url))}"
