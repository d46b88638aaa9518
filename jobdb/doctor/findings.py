"""What the doctor says: findings, and a report of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome. ``fix_command`` is a command that makes it ok; words in capitals in it are to be filled
    in."""

    check: str
    level: Level
    message: str
    fix_command: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"check": self.check, "level": self.level, "message": self.message, "mend": self.fix_command}


@dataclass(slots=True)
class Report:
    """All findings on one registry.

    Attributes:
        url: the registry, without a password.
        command: how the command line is called for it; the beginning of every advice.
    """

    url: str
    command: str = "jobdb"
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing failed; there may be warnings."""
        return all(finding.level != "fail" for finding in self.findings)

    def add(self, check: str, level: Level, message: str, fix_command: str | None = None) -> None:
        self.findings.append(Finding(check, level, message, fix_command))

    def passed(self, check: str, message: str) -> None:
        self.add(check, "ok", message)

    def warn(self, check: str, message: str, fix_command: str | None = None) -> None:
        self.add(check, "warn", message, fix_command)

    def fail(self, check: str, message: str, fix_command: str | None = None) -> None:
        self.add(check, "fail", message, fix_command)

    def as_dict(self) -> dict[str, Any]:
        return {"url": self.url, "ok": self.ok, "findings": [finding.as_dict() for finding in self.findings]}


def fix_command_for(report: Report, error: BaseException) -> str | None:
    """Return the command that mends an error: what fits its kind, else the one that its message names in quotes.

    Only damage calls for a backup. A command of the message gets the registry that this report is about.
    """
    import apsw

    from ..errors import Busy

    if isinstance(error.__cause__, (apsw.CorruptError, apsw.NotADBError)):
        return f"{report.command} restore BACKUP"
    if isinstance(error, Busy):
        return f"{report.command} --busy-timeout 60 doctor"
    found = re.search(r"'jobdb ([^']+)'", str(error))
    if found is None or found[1].startswith("doctor"):
        return None
    return f"{report.command if '--db' not in found[1] else 'jobdb'} {found[1]}"


def format_age(ms: float) -> str:
    """A duration in milliseconds as a person says it."""
    seconds = max(0, int(ms // 1000))
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {word}"
    return f"{seconds} s"
