"""Run the command line in real processes, with a separate database, home and master key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobdb import Registry, Vault
from tests.support.environment import clean_environment
from tests.support.keys import MASTER_KEY
from tests.support.terminal import Terminal

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
    """The command line on one database. Every run is checked for tracebacks and for its exit code.

    Args:
        folder: the home and the current folder of the commands; the database lies below it.
        compiled: a folder for compiled modules, shared by all runners of a session.

    Attributes:
        database: the database's path; it need not exist.
        env: the commands' environment.
    """

    def __init__(self, folder: Path, compiled: Path) -> None:
        self.folder = folder
        self.database = folder / "db" / "jobs.db"
        self._started: list[subprocess.Popen[bytes]] = []
        self.env = clean_environment(
            folder,
            JOBDB_KEY=MASTER_KEY,
            JOBDB_URL=f"sqlite:///{self.database}",
            # Hundreds of processes: each would compile the sources again if their folder is not writable.
            PYTHONPYCACHEPREFIX=str(compiled),
        )
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)

    def create_database(self) -> None:
        """Create the empty database."""
        from jobdb.engines.sqlite.migrations import migrate
        from jobdb.filesystem.permissions import create_private_file

        self.database.parent.mkdir(mode=0o700)
        create_private_file(self.database)
        migrate(self.database, backup=False)

    def __call__(
        self,
        *arguments: str | Path,
        code: int = 0,
        input: str | bytes = b"",
        env: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> Result:
        """Run a command that must end with exit code ``code``."""
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
        """Start a command that runs beside the test until `stop`."""
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self.env,
            cwd=self.folder,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self._started.append(process)
        return process

    def stop(self) -> None:
        """Kill the commands that still run."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=30)

    def register(self, *arguments: str | Path, agent: str = "codex", prompt: str = "do it") -> str:
        """Register a job; return its id."""
        return self("register", "--agent", agent, *arguments, prompt).out.strip()

    def open_registry(self) -> Registry:
        """Open the database through the library."""
        return Registry.open(self.database, vault=Vault.open(env=self.env))

    def run_in_terminal(
        self,
        *arguments: str | Path,
        columns: int = 100,
        env: dict[str, str] | None = None,
        codes: tuple[int, ...] = (0, 1),
        keys: tuple[str, str] = ("", ""),
    ) -> str:
        """Return what the command writes to a terminal; type the second of ``keys`` if the first appears."""
        shown = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
        with Terminal(
            [*COMMAND, *map(str, arguments)],
            env={**self.env, **shown, **(env or {})},
            folder=self.folder,
            columns=columns,
            lines=40,
        ) as terminal:
            awaited, typed = keys
            if typed and terminal.appears(re.escape(awaited)):
                terminal.type(typed)
            written = terminal.read_to_end()
            assert terminal.process.returncode in codes, written
        return written
