"""A registry that a test uses with the real command in a shell, and with the library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobdb import Registry, Vault
from tests.support.environment import clean_environment

TIMEOUT_SEC = 120


class Workspace:
    """A folder with a database, a home, a key file and a shell whose ``jobdb`` is the one under test.

    Attributes:
        root: the folder.
        database: the database's path; it need not exist.
        env: the shell's environment.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "db" / "jobs.db"
        home = root / "home"
        home.mkdir()
        tools = root / "bin"
        tools.mkdir()
        (tools / "jobdb").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobdb.cli "$@"\n')
        (tools / "jobdb").chmod(0o755)
        self.env = clean_environment(home, PATH=f"{tools}:{os.environ['PATH']}", JOBDB_URL=str(self.database))

    def registry(self, **options: Any) -> Registry:
        """Open the database through the library."""
        return Registry.open(self.database, create=True, vault=Vault.open(env=self.env), **options)

    def sh(self, command: str, *, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command line. The caller judges its exit code; a traceback is always an error."""
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
            env=self.env,
            start_new_session=True,
        )
        try:
            out, errors = process.communicate(input, timeout=TIMEOUT_SEC)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert "Traceback" not in errors, errors
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    def jobdb(self, arguments: str, *, input: str = "") -> str:
        """Run a jobdb command that must succeed; return its output."""
        done = self.sh(f"jobdb {arguments}", input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def doctor(self, flags: str = "", *, before: str = ":") -> Diagnosis:
        """Run the doctor in a shell in which ``before`` was run first, with "y" as the answer to any question."""
        done = self.sh(f"{before}\njobdb doctor --json {flags}", input="y\n")
        diagnosis = Diagnosis(self, flags, json.loads(done.stdout.splitlines()[-1]))
        assert done.returncode == (0 if diagnosis.report["ok"] else 5), done.stderr
        return diagnosis


class Diagnosis:
    """The doctor's report, and the effect of following its advice."""

    def __init__(self, workspace: Workspace, flags: str, report: dict[str, Any]) -> None:
        self._workspace = workspace
        self._flags = flags
        self.report = report

    def of(self, check: str) -> list[dict[str, Any]]:
        """Return all findings of a check."""
        return [finding for finding in self.report["findings"] if finding["check"] == check]

    def found(self, check: str, level: str, *words: str) -> dict[str, Any]:
        """Return the one bad finding of a check, which must have that level and contain these words."""
        bad = [finding for finding in self.of(check) if finding["level"] != "ok"]
        assert len(bad) == 1 and bad[0]["level"] == level, self.report
        for word in words:
            assert word in bad[0]["message"], bad[0]
        return bad[0]

    def expect_ok(self, check: str) -> None:
        """Assert that the check ran and found nothing bad."""
        assert {finding["level"] for finding in self.of(check)} == {"ok"}, self.report

    def apply_advice(self, check: str, **words: str | Path) -> Diagnosis:
        """Run the advice of a check, with its words in capitals replaced; then the check must be ok."""
        (finding,) = [finding for finding in self.of(check) if finding["level"] != "ok"]
        command = finding["fix"]
        for word, value in words.items():
            assert word in command
            command = command.replace(word, str(value))
        after = self._workspace.doctor(self._flags, before=command)
        after.expect_ok(check)
        return after
