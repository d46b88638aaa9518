"""A PgBouncer in front of a test's server, on loopback, in transaction mode; removed at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.ports import free_port
from tests.support.postgresql.server import START_SEC, PostgresServer


class PgBouncer:
    """One pooler: each transaction gets one of ``sessions`` sessions of the server, the one that was used last.

    Args:
        program: PgBouncer.
        server: what is behind it.
        sessions: how many of the server's sessions it keeps.
    """

    def __init__(self, program: str, server: PostgresServer, *, sessions: int = 2) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobdb-pgb-"))
        self.port = free_port()
        user = server.account
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host={server.sockets} port={server.port} user=jobdb\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir = {self.folder}\n"
            f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {sessions}\nmax_client_conn = 200\n"
            f"logfile = {self.folder}/log\nserver_check_delay = 0\nserver_login_retry = 0.1\n"
        )
        self.folder.chmod(0o755)
        if user:
            os.chown(self.folder, user["user"], user["group"])
        self._process = subprocess.Popen(
            [program, "-q", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **user,
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def url(self, database: str = "postgres", *, socket: bool = False) -> str:
        """Return a connection URL, by TCP or by its socket."""
        host = str(self.folder) if socket else "127.0.0.1"
        return f"postgresql://jobdb@/{database}?host={host}&port={self.port}"

    def _wait_until_it_answers(self) -> None:
        import psycopg

        deadline = time.monotonic() + START_SEC
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = self.folder / "log"
                    said = log.read_text("utf-8", "replace") if log.exists() else ""
                    raise RuntimeError(f"PgBouncer did not start ({error}):\n{said[-3000:]}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it and delete its folder."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(START_SEC)
        shutil.rmtree(self.folder, ignore_errors=True)
