"""A private PostgreSQL server for a benchmark, on a socket in its own folder only.

Called by adapters/postgresql.py and the benchmark of the workers. Durability is PostgreSQL's own: fsync and
synchronous_commit are on. The folder must be on the measured disk, and PostgreSQL's account must get through to it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

_SEC = 60
_CONNECTIONS = 100


def _binaries() -> Path | None:
    """Return the folder of initdb and pg_ctl, of the newest version."""
    found = shutil.which("initdb")
    if found:
        return Path(os.path.realpath(found)).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


def _account() -> str | None:
    """Return the account that runs the server: ``postgres`` if we are root, which PostgreSQL refuses; else None."""
    return "postgres" if os.geteuid() == 0 else None


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SEC, cwd="/", user=_account())
    return done.stdout


def reason_unavailable() -> str:
    """Return why no server can run here; an empty text when one can."""
    if find_spec("psycopg") is None:
        return "there is no psycopg"
    if _binaries() is None:
        return "no PostgreSQL server is installed"
    if _account() is not None:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no account 'postgres'"
    return ""


def server_version() -> str:
    """Return the version as the server's program prints it."""
    binaries = _binaries()
    return _run([str(binaries / "postgres"), "--version"]).strip() if binaries else "no server"


class PostgresServer:
    """One server with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _tool(self, name: str, *arguments: str) -> str:
        binaries = _binaries()
        assert binaries is not None
        return _run([str(binaries / name), *arguments])

    def start(self) -> None:
        """Start the server, unless its folder is there already."""
        if (self.folder / "data").exists():
            return
        self.folder.mkdir(mode=0o700)
        if _account() is not None:
            shutil.chown(self.folder, "postgres", "postgres")
        self._tool("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8")
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections={_CONNECTIONS}"
        log = str(self.folder / "log")
        self._tool("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self._tool("pg_ctl", "-D", str(self.folder / "data"), "-m", "fast", "-w", "stop")

    @property
    def pid(self) -> int:
        """Return the pid of the server's first process, the parent of all others."""
        return int((self.folder / "data" / "postmaster.pid").read_text("ascii").split()[0])

    def url(self, database: str) -> str:
        return f"postgresql:///{database}?host={self.folder}&user=postgres"

    def sql(self, database: str, script: str) -> str:
        """Run SQL with psql; return its output, fields separated by ``|``."""
        return self._tool(
            "psql", "-h", str(self.folder), "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atqc", script
        )

    def create(self, database: str, template: str | None = None) -> None:
        """Create a database: an empty one, or a copy of ``template``, to which nobody may be connected."""
        self.sql("postgres", f'CREATE DATABASE "{database}"' + (f' TEMPLATE "{template}"' if template else ""))

    def drop(self, database: str) -> None:
        self.sql("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')

    def databases(self) -> int:
        """Return the number of databases that were created here."""
        return int(
            self.sql("postgres", "SELECT count(*) FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
        )
