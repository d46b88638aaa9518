"""jobdb on PostgreSQL: the same library and verbs on a private server that is started for the benchmark.

Called by harness.py. The server listens on a socket in the data folder only, with PostgreSQL's own settings for
durability (fsync and synchronous_commit on). A copy of a registry is a database created from the template's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from jobdb import __version__

from .base import AdapterInfo
from .jobdb import SET_STATUSES_SQL, Jobdb

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


class Postgresql(Jobdb):
    def __init__(self, folder: Path, durability: str) -> None:
        super().__init__(folder, durability)
        self._server = folder.parent / "postgresql-server"
        self._database = folder.name.replace("-", "_")

    @classmethod
    def info(cls, durability: str) -> AdapterInfo:
        binaries = _binaries()
        version = _run([str(binaries / "postgres"), "--version"]).strip() if binaries else "no server"
        return AdapterInfo(
            label="jobdb on PostgreSQL, full",
            durability=durability,
            as_shipped=True,
            settings="fsync=on, synchronous_commit=on: PostgreSQL's own settings; local socket",
            version=f"jobdb {__version__}, {version}",
        )

    @classmethod
    def reason_unavailable(cls) -> str:
        for module in ("psycopg", "jobdb.engines.postgresql"):
            if find_spec(module) is None:
                return f"there is no {module}"
        if _binaries() is None:
            return "no PostgreSQL server is installed"
        if _account() is not None:
            try:
                pwd.getpwnam("postgres")
            except KeyError:
                return "PostgreSQL does not run as root, and there is no account 'postgres'"
        return ""

    def _url(self) -> str:
        return f"postgresql:///{self._database}?host={self._server}&user=postgres"

    def _tool(self, name: str, *arguments: str) -> str:
        binaries = _binaries()
        assert binaries is not None
        return _run([str(binaries / name), *arguments])

    def _start(self) -> None:
        if (self._server / "data").exists():
            return
        self._server.mkdir(mode=0o700)
        if _account() is not None:
            shutil.chown(self._server, "postgres", "postgres")
        self._tool("initdb", "-D", str(self._server / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8")
        options = f"-k {self._server} -c listen_addresses='' -c max_connections={_CONNECTIONS}"
        log = str(self._server / "log")
        self._tool("pg_ctl", "-D", str(self._server / "data"), "-o", options, "-l", log, "-w", "start")

    def _sql(self, database: str, script: str) -> str:
        return self._tool(
            "psql", "-h", str(self._server), "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atqc", script
        )

    def prepare(self, size: int) -> None:
        self._start()
        self._sql("postgres", f'CREATE DATABASE "{self._database}"')
        super().prepare(size)
        (self.folder / "template").write_text(self._database, "utf-8")

    def _set_statuses(self) -> None:
        self._sql(self._database, SET_STATUSES_SQL)

    def after_copy(self) -> None:
        template = (self.folder / "template").read_text("utf-8")
        self._sql("postgres", f'CREATE DATABASE "{self._database}" TEMPLATE "{template}"')

    def before_remove(self) -> None:
        """Drop the database; the last one stops the server."""
        self._sql("postgres", f'DROP DATABASE "{self._database}" WITH (FORCE)')
        others = "SELECT count(*) FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        left = self._sql("postgres", others)
        if left.strip() == "0":
            self._tool("pg_ctl", "-D", str(self._server / "data"), "-m", "fast", "-w", "stop")
