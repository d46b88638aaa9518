"""Runs the real command in real processes, each test with a database, a home and a master key of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry, Vault

MASTER_KEY = "42" * 32
TIMEOUT_SEC = 120
COMMAND = (sys.executable, "-m", "jobdb.cli")


@dataclass(frozen=True)
class Result:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class CliRunner:
    """The command line on one database. Every run is checked for tracebacks and for its exit code."""

    def __init__(self, folder: Path, compiled: Path) -> None:
        self.folder = folder
        self.database = folder / "db" / "jobs.db"
        self._started: list[subprocess.Popen[bytes]] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBDB_", "MQTT_"))}
        for name in ("NO_COLOR", "FORCE_COLOR", "CREDENTIALS_DIRECTORY", "XDG_CONFIG_HOME", "PYTHONDONTWRITEBYTECODE"):
            kept.pop(name, None)
        self.env = {**kept, "HOME": str(folder), "JOBDB_KEY": MASTER_KEY, "JOBDB_URL": f"sqlite:///{self.database}"}
        # Hundreds of processes: each would compile the sources anew where their folder cannot hold the result.
        self.env["PYTHONPYCACHEPREFIX"] = str(compiled)

    def __call__(
        self,
        *arguments: str | Path,
        code: int = 0,
        input: str | bytes = b"",
        env: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> Result:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            input=input.encode() if isinstance(input, str) else input,
            capture_output=True,
            env={**self.env, **(env or {})},
            cwd=self.folder,
            timeout=TIMEOUT_SEC,
            check=False,
            pass_fds=pass_fds,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.err, result.err
        assert result.code == code, f"{arguments}: exit code {result.code}\n{result.out}\n{result.err}"
        return result

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """A command that runs beside the test; the fixture ends it."""
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self.env,
            cwd=self.folder,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self._started.append(process)
        return process

    def register(self, *arguments: str | Path, agent: str = "codex", prompt: str = "do it") -> str:
        return self("register", "--agent", agent, *arguments, prompt).out.strip()

    def open_registry(self) -> Registry:
        """The same database through the library, to prepare or to look."""
        return Registry.open(self.database, vault=Vault.open(env=self.env))

    def run_in_terminal(
        self,
        *arguments: str | Path,
        columns: int = 100,
        env: dict[str, str] | None = None,
        codes: tuple[int, ...] = (0, 1),
        keys: tuple[str, str] = ("", ""),
    ) -> str:
        """What the command writes when stdout and stderr are a terminal.

        Keys are typed once the first text of the pair has appeared.
        """
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env={**self.env, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40", **(env or {})},
            cwd=self.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        awaited, typed = (text.encode() for text in keys)
        written, deadline = b"", time.monotonic() + TIMEOUT_SEC
        try:
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 1.0)[0]:
                    try:
                        chunk = os.read(ours, 65536)
                    except OSError:  # Linux: the other side has closed
                        break
                    if not chunk:
                        break
                    written += chunk
                if typed and awaited in written:
                    os.write(ours, typed)
                    typed = b""
            assert process.wait(timeout=30) in codes, written
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return written.decode()


@pytest.fixture
def cli_without_database(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliRunner]:
    """The command line without a database."""
    cli = CliRunner(tmp_path, tmp_path_factory.getbasetemp() / "compiled")
    yield cli
    for process in cli._started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


@pytest.fixture
def cli(cli_without_database: CliRunner) -> CliRunner:
    """The command line with an empty database."""
    return _with_database(cli_without_database)


@pytest.fixture(scope="module")
def module_cli(tmp_path_factory: pytest.TempPathFactory) -> CliRunner:
    """The command line with a database that all tests of a file share."""
    return _with_database(CliRunner(tmp_path_factory.mktemp("shared"), tmp_path_factory.getbasetemp() / "compiled"))


def _with_database(cli: CliRunner) -> CliRunner:
    from jobdb.engines.sqlite.migrations import migrate
    from jobdb.filesystem.permissions import create_private_file

    cli.database.parent.mkdir(mode=0o700)
    create_private_file(cli.database)
    migrate(cli.database, backup=False)
    return cli
