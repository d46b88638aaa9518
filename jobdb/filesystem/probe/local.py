"""Tries out whether a folder keeps the promises that a rollback journal needs: `jobdb probe`.

Called by the SQLite engine before it writes to a folder that is not local (`require_safe_folder`, milliseconds),
and by the command line (`probe_folder`: two processes; `probe_peer`: two hosts, seconds). Works on scratch
files in a folder of its own, never on a database: closing a file by hand would drop SQLite's locks on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import UnsafeFileSystem
from ..nfs_exports import ExportFinding, check_export
from ..ofd_locks import set_lock
from ..placement import Placement, nearest_existing, placement_for
from ..policy import ALTERNATIVES
from . import record
from .checks import LOCAL_PLAN, Check, failed_check, run_plan
from .parties import LocalParty, PartyError
from .worker import LOCK_LENGTH, LOCK_START

__all__ = ["Check", "ProbeReport", "probe_folder", "probe_peer", "quick_lock_probe", "require_safe_folder"]

PEER_TIMEOUT_SEC = 60.0
_OPERATION_LIMIT_SEC = 8.0


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe found.

    Attributes:
        folder: the folder that was probed.
        kind: "quick" (one process), "local" (two processes), or "peer" (two hosts).
        checks: the outcomes, in the order in which they were found.
        took_sec: how long it took, in seconds.
        peers: the names of the hosts that met, for a peer probe.
        export: what is known of the NFS export behind the folder; None where there is none.
    """

    folder: str
    kind: str
    checks: tuple[Check, ...]
    took_sec: float
    peers: tuple[str, ...] = ()
    export: ExportFinding | None = None

    @property
    def ok(self) -> bool:
        """Whether every check passed; a probe without checks proves nothing and is not ok."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What no probe can tell, and what to do about it: a sentence each."""
        unseen = self.export
        return (f"{unseen.message}; {unseen.advice}",) if unseen is not None and unseen.level == "warn" else ()

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        scope = {"peer": "between these hosts", "local": "between processes of this host"}.get(self.kind, "here")
        if self.ok:
            provided = ", if the server's export is sync" if self.warnings else ""
            return f"a rollback journal is safe in {self.folder} {scope}{provided}"
        if not self.checks:
            return f"nothing was found out about {self.folder}"
        names = ", ".join(check.name for check in self.failures)
        return f"no database may be kept in {self.folder}: failed {names}"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values, `ok` and `verdict` included."""
        return {
            "folder": self.folder,
            "kind": self.kind,
            "ok": self.ok,
            "verdict": self.verdict,
            "peers": list(self.peers),
            "took_sec": round(self.took_sec, 3),
            "checks": [check.as_dict() for check in self.checks],
            "warnings": list(self.warnings),
        }


def with_export_check(report: ProbeReport) -> ProbeReport:
    """Return the report with what is known of the NFS export behind the folder: one that loses commits fails it."""
    if not report.ok:  # it may be a file system that hangs, and looking at its folder would hang as well
        return report
    found = check_export(placement_for(report.folder))
    if found is None or found.level == "warn":
        return replace(report, export=found)
    check = Check("export-sync", found.level == "ok", found.message, found.advice)
    return replace(report, checks=(*report.checks, check), export=found)


def quick_lock_probe(folder: str | Path) -> ProbeReport:
    """Checks within milliseconds that locks exclude in a folder, by two owners within this process.

    Linux gives a lock either to the process or to the open file (fcntl(2), "open file description locks");
    the two exclude each other, on the wire too, so that no second process is needed. Elsewhere
    the probe between two processes runs instead.

    Args:
        folder: an existing folder that may be written to.

    Returns:
        The report; `ok` is False where a lock did not exclude, was not given, or no file could be made.
    """
    began = time.monotonic()
    if not sys.platform.startswith("linux"):
        return probe_folder(folder)
    name = os.path.join(folder, f".jobdb-probe-{secrets.token_hex(6)}")
    try:
        check = _check_two_owners(name)
    except OSError as error:
        check = failed_check("locks-exclude", PartyError("lock", error.errno or errno.EIO))
    return ProbeReport(os.fspath(folder), "quick", (check,), time.monotonic() - began)


def _check_two_owners(name: str) -> Check:
    one = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        other = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_LENGTH, LOCK_START)
            if _try_ofd_lock(other):
                _try_ofd_lock(other, fcntl.F_UNLCK)
                return failed_check("locks-exclude", None)
            fcntl.lockf(one, fcntl.LOCK_UN, LOCK_LENGTH, LOCK_START)
            if not _try_ofd_lock(other):
                return failed_check("lock-handed-over", None)
            # FUSE does not give such a lock back on close, and the number of the file is used again.
            _try_ofd_lock(other, fcntl.F_UNLCK)
        finally:
            os.close(other)
    finally:
        os.unlink(name)
        os.close(one)
    return Check("locks-exclude", True, "a lock excludes a second owner and is free when given back")


def _try_ofd_lock(fd: int, kind: int = fcntl.F_WRLCK) -> bool:
    try:
        set_lock(fd, kind, LOCK_START, LOCK_LENGTH)
    except (BlockingIOError, PermissionError):
        return False
    return True


def require_safe_folder(placement: Placement) -> None:
    """Refuses a folder in which a database may not be written to.

    To be called before the first write, also before the folder is made: then the nearest folder above it is
    probed. Costs nothing for a local file system, some milliseconds elsewhere.

    Args:
        placement: what `filesystem.placement_for` said of the folder.

    Raises:
        UnsafeFileSystem: the policy refused the folder, the quick lock probe failed, or the folder needs a
            probe between two hosts and none has passed on this host with the mount as it is now.
    """
    if placement.refused:
        raise UnsafeFileSystem(f"{placement.folder} cannot hold the database: {_reason_and_advice(placement)}")
    if not placement.needs_probe:
        return
    folder = nearest_existing(placement.folder)
    report = quick_lock_probe(folder)
    if not report.ok:
        failure = report.failures[0]
        raise UnsafeFileSystem(f"{placement.folder} cannot hold the database: {failure.detail}; {failure.advice}")
    if placement.needs_peer_probe and not record.has_passed(placement):
        raise UnsafeFileSystem(
            f"{placement.folder} may not be written to yet: {placement.reason}. "
            f"Run 'jobdb probe {shlex.quote(folder)} --peer NAME' at the same time here and on another host that "
            f"uses the folder, each with a name of its own; or {ALTERNATIVES}"
        )


def _reason_and_advice(placement: Placement) -> str:
    return placement.reason if placement.advice is None else f"{placement.reason}; {placement.advice}"


def probe_folder(folder: str | Path, *, timeout_sec: float = 10.0) -> ProbeReport:
    """Checks a folder with two processes of this host.

    Args:
        folder: an existing folder; a scratch folder is made in it and removed again.
        timeout_sec: longest time, in seconds; a file system that hangs is reported, not waited for.

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
                # A folder that cannot be removed now stays behind under its own clear name.
                with contextlib.suppress(PartyError):
                    folder_party.call("remove_folder", name=scratch, recursive=True)
    return with_export_check(ProbeReport(os.fspath(folder), "local", tuple(checks), time.monotonic() - began))


def probe_peer(folder: str | Path, *, name: str, timeout_sec: float = PEER_TIMEOUT_SEC) -> ProbeReport:
    """Checks a folder between this host and another that runs the same at the same time.

    The two meet through the folder itself, so nothing but the folder need connect them.

    Args:
        folder: an existing folder that both hosts see, each under a path of its own.
        name: what to call this host in the report, such as its host name.
        timeout_sec: longest wait for the other host, in seconds; the checks take up to 45 s more.

    Returns:
        The report; both hosts get the same checks, and each what it can tell of an NFS export. Where the folder needs
        a probe between hosts (`Placement.needs_peer_probe`), one that passed is recorded in the folder for this host
        and mount.
    """
    from .peer import run_peer_probe

    return with_export_check(run_peer_probe(folder, name=name, timeout_sec=timeout_sec))
