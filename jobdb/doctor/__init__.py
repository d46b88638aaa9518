"""Is all well? One line a check: ok, warn or fail, with the command that mends it.

Called by ``jobdb doctor``. It opens nothing by hand while a connection is open, changes nothing, and never raises for
what it finds: a database that cannot be opened is a finding.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import JobdbError
from ..registry import Registry, now_ms
from ..urls import DatabaseUrl
from .database import check_database
from .findings import Finding, Report
from .place import check_file, check_place
from .state import check_state

__all__ = ["Finding", "Report", "examine"]


def examine(
    url: DatabaseUrl,
    *,
    full: bool = False,
    open_registry: Callable[[], Registry] | None = None,
    clock: Callable[[], int] = now_ms,
) -> Report:
    """Examines a registry.

    Args:
        url: where it is.
        full: also read every page (integrity) and follow every reference (foreign keys); takes time with the size.
        open_registry: opens it; by default ``Registry.open`` with a short wait.
        clock: Unix time in milliseconds.

    Returns:
        The findings, in the order in which to mend them.
    """
    report = Report(str(url))
    if url.path is not None:
        check_place(report, url.path)
        if not check_file(report, url.path):
            return report
    try:
        registry = (open_registry or (lambda: Registry.open(url.text, busy_timeout_sec=2.0)))()
    except JobdbError as error:
        report.fail("open", str(error), _command_in(str(error)))
        return report
    with registry:
        check_database(report, registry, full=full)
        check_state(report, registry, now=clock())
    return report


def _command_in(message: str) -> str | None:
    """The command that an error's message names in quotes, if it does."""
    start = message.find("'jobdb ")
    return message[start + 1 : message.find("'", start + 1)] if start >= 0 else None
