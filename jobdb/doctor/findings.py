"""The doctor's report: one finding per check, each with the command that fixes it.

Called by every check of this package, and by the command line, which prints the report. Uses only the errors of jobdb
and SQLite.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import apsw

from ..errors import Busy, JobdbError

Level = Literal["ok", "warn", "fail"]

_QUOTED_COMMAND = re.compile(r"'jobdb ([^']+)'")


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was checked; a stable name.
        level: ``ok``, ``warn`` or ``fail``.
        message: what was found, for a person.
        fix_command: a shell command that fixes it, with placeholders in capitals; None if there is none.
    """

    check: str
    level: Level
    message: str
    fix_command: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values under stable names."""
        return {"check": self.check, "level": self.level, "message": self.message, "fix": self.fix_command}


@dataclass(slots=True)
class DoctorReport:
    """All findings about one registry, in the order in which to fix them.

    Attributes:
        url: the registry, without a password.
        command: the command that addresses it, with which each fix begins.
        findings: what the checks found.
    """

    url: str
    command: str = "jobdb"
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if nothing failed; there may be warnings."""
        return all(finding.level != "fail" for finding in self.findings)

    def passed(self, check: str, message: str) -> None:
        """Add a finding that needs no action."""
        self.findings.append(Finding(check, "ok", message))

    def warn(self, check: str, message: str, fix_command: str | None = None) -> None:
        """Add a finding that a person should look at; the registry can be used."""
        self.findings.append(Finding(check, "warn", message, fix_command))

    def fail(self, check: str, message: str, fix_command: str | None = None) -> None:
        """Add a finding that must be fixed."""
        self.findings.append(Finding(check, "fail", message, fix_command))

    def fail_on(self, check: str, error: Exception, *, fix_command: str | None = None) -> None:
        """Add a finding for an error.

        Args:
            check: the check that raised it.
            error: what was raised.
            fix_command: the command to use if the error does not imply one.
        """
        self.fail(check, describe_error(error), fix_command_for(self, error) or fix_command)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values under stable names."""
        return {"url": self.url, "ok": self.ok, "findings": [finding.as_dict() for finding in self.findings]}


def is_damage(error: Exception) -> bool:
    """Return whether an error means a damaged database file, not a failed disk, a lock or a missing permission."""
    return isinstance(error.__cause__, (apsw.CorruptError, apsw.NotADBError))


def describe_error(error: Exception) -> str:
    """Return an error's message with its advice for the command line, where fixes are run."""
    return error.for_command_line() if isinstance(error, JobdbError) else str(error)


def fix_command_for(report: DoctorReport, error: Exception) -> str | None:
    """Return the command that fixes an error: one for its kind, or else the one quoted in its advice.

    Only damage calls for a backup. A command from an error's advice is completed with the registry of this report.
    """
    if is_damage(error):
        return f"{report.command} restore BACKUP"
    if isinstance(error, Busy):
        return f"{report.command} --busy-timeout 60 doctor"
    quoted = _QUOTED_COMMAND.search(_command_line_advice(error))
    if quoted is None or quoted[1].startswith("doctor"):
        return None
    return f"{report.command if '--db' not in quoted[1] else 'jobdb'} {quoted[1]}"


def _command_line_advice(error: Exception) -> str:
    """Return the part of an error that says what to run.

    An error's ``command`` is a sentence that quotes the command, and its ``advice`` may be one. Errors that have
    neither, such as those raised on opening a database, say it in their message.
    """
    if isinstance(error, JobdbError):
        return error.command or error.advice or error.message
    return str(error)
