"""The probe of a folder by two processes of this host: `jobdb probe`.

Called by the command line. Works on scratch files in a folder of its own, never on a database: closing one by hand
would drop SQLite's locks on it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from .checks import LOCAL_PLAN, run_plan
from .failures import PartyError, failed_check
from .parties import LocalParty
from .report import ProbeReport, with_export_check

_OPERATION_LIMIT_SEC = 8.0


def probe_folder(folder: str | Path, *, timeout_sec: float = 10.0) -> ProbeReport:
    """Check a folder with two processes of this host.

    Args:
        folder: an existing folder; a scratch folder is created in it and removed again.
        timeout_sec: the longest time, in seconds; a file system that hangs is reported.

    Returns:
        The report.
    """
    began = time.monotonic()
    end = began + timeout_sec
    limit = min(_OPERATION_LIMIT_SEC, timeout_sec)
    scratch = f".jobdb-probe-{secrets.token_hex(6)}"
    with LocalParty(folder, limit_sec=limit) as folder_party:
        try:
            folder_party.call("make_folder", name=scratch)
        except PartyError as failure:
            checks = [failed_check("folder-made", failure)]
        else:
            try:
                with (
                    LocalParty(folder, scratch, limit_sec=limit) as a,
                    LocalParty(folder, scratch, limit_sec=limit) as b,
                ):
                    checks = run_plan(LOCAL_PLAN, a, b, first_label="a", second_label="b", end=end)
            finally:
                # A folder that cannot be removed now is left behind; its name shows what it is.
                with contextlib.suppress(PartyError):
                    folder_party.call("remove_folder", name=scratch, recursive=True)
    return with_export_check(ProbeReport(os.fspath(folder), "local", tuple(checks), time.monotonic() - began))
