"""A registry of its own for each test, worked on with the real command in a shell, and with the library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry, Vault
from tests.support.twohosts.mount import TwoHosts, unavailable_reason

TIMEOUT_SEC = 120


class Workspace:
    """A folder with a database in it, a home, a key file and a shell whose ``jobdb`` is this one.

    Attributes:
        database: the database's path; it need not exist.
        env: the shell's environment.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "db" / "jobs.db"
        home = root / "home"
        home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBDB_", "MQTT_", "XDG_"))}
        kept.pop("CREDENTIALS_DIRECTORY", None)
        tools = root / "bin"
        tools.mkdir()
        (tools / "jobdb").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobdb.cli "$@"\n')
        (tools / "jobdb").chmod(0o755)
        self.env = {**kept, "HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}", "JOBDB_URL": str(self.database)}

    def registry(self, **options: Any) -> Registry:
        """The same database through the library."""
        return Registry.open(self.database, create=True, vault=Vault.open(env=self.env), **options)

    def sh(self, command: str, *, input: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command line; what it answers is the caller's to judge, but a traceback is always wrong."""
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
        """The output of a command that must succeed."""
        done = self.sh(f"jobdb {arguments}", input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def doctor(self, flags: str = "", *, before: str = ":") -> Diagnosis:
        """What the doctor says, in a shell in which ``before`` was run first (with "y" for whatever it asks)."""
        done = self.sh(f"{before}\njobdb doctor --json {flags}", input="y\n")
        diagnosis = Diagnosis(self, flags, json.loads(done.stdout.splitlines()[-1]))
        assert done.returncode == (0 if diagnosis.report["ok"] else 5), done.stderr
        return diagnosis


class Diagnosis:
    """The doctor's report, and what following its advice leads to."""

    def __init__(self, workspace: Workspace, flags: str, report: dict[str, Any]) -> None:
        self._workspace = workspace
        self._flags = flags
        self.report = report

    def of(self, check: str) -> list[dict[str, Any]]:
        return [finding for finding in self.report["findings"] if finding["check"] == check]

    def found(self, check: str, level: str, *words: str) -> dict[str, Any]:
        """The one finding of a check, which must be of that level and say these words."""
        bad = [finding for finding in self.of(check) if finding["level"] != "ok"]
        assert len(bad) == 1 and bad[0]["level"] == level, self.report
        for word in words:
            assert word in bad[0]["message"], bad[0]
        return bad[0]

    def expect_ok(self, check: str) -> None:
        assert {finding["level"] for finding in self.of(check)} == {"ok"}, self.report

    def apply_advice(self, check: str, **words: str | Path) -> Diagnosis:
        """Runs the advice as it stands there, words in capitals filled in; the check must be ok then."""
        (finding,) = [finding for finding in self.of(check) if finding["level"] != "ok"]
        command = finding["mend"]
        for word, value in words.items():
            assert word in command
            command = command.replace(word, str(value))
        after = self._workspace.doctor(self._flags, before=command)
        after.expect_ok(check)
        return after


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def two_hosts(tmp_path: Path, require: Callable[[bool, str], None]) -> Iterator[Callable[..., TwoHosts]]:
    """Starts a file server that two hosts mount, with the given options of `tests.support.twohosts.server`."""
    reason = unavailable_reason()
    require(reason is None, str(reason))
    with ExitStack() as running:
        yield lambda *options: running.enter_context(TwoHosts(tmp_path, *options))
