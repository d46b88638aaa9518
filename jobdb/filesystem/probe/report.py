"""The report of a probe: the outcomes of its checks, and the verdict.

Used by the probe, which fills it, and by the command line, which prints it; calls the placement policy and the check of
NFS exports, and runs no check of its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..placement import placement_for

if TYPE_CHECKING:
    from ..nfs_exports import ExportFinding


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: stable name, such as "locks-exclude".
        ok: the check passed.
        detail: the observation.
        advice: what to do about it; None if ok.
    """

    name: str
    ok: bool
    detail: str
    advice: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The result of a probe.

    Attributes:
        folder: the folder that was probed.
        kind: "quick" (one process), "local" (two processes), or "peer" (two hosts).
        checks: the outcomes, in the order of the checks.
        took_sec: how long it took, in seconds.
        peers: the names of the hosts, for a peer probe.
        export: the finding about the NFS export behind the folder; None if there is none.
    """

    folder: str
    kind: str
    checks: tuple[Check, ...]
    took_sec: float
    peers: tuple[str, ...] = ()
    export: ExportFinding | None = None

    @property
    def ok(self) -> bool:
        """True if every check passed; a probe without checks proves nothing and is not ok."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The questions that no probe can decide, with advice: one sentence each."""
        export = self.export
        return (f"{export.message}; {export.advice}",) if export is not None and export.level == "warn" else ()

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        scope = {"peer": "between these hosts", "local": "between processes of this host"}.get(self.kind, "here")
        if self.ok:
            provided = ", if the server's export is sync" if self.warnings else ""
            return f"a rollback journal is safe in {self.folder} {scope}{provided}"
        if not self.checks:
            return f"no check of {self.folder} was run"
        names = ", ".join(check.name for check in self.failures)
        return f"no database may be kept in {self.folder}: failed {names}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, `ok` and `verdict` included."""
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
    """Add the finding about the NFS export behind the folder to a report, which fails if that can lose commits."""
    if not report.ok:  # the file system may hang, and examining its folder would hang as well
        return report
    from ..nfs_exports import check_export

    found = check_export(placement_for(report.folder))
    if found is None or found.level == "warn":
        return replace(report, export=found)
    check = Check("export-sync", found.level == "ok", found.message, found.advice)
    return replace(report, checks=(*report.checks, check), export=found)
