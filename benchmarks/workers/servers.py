"""The servers that peers need, started for one run in a folder on the measured disk: PostgreSQL and Redis.

Called by series.py, which asks for a place for each queue. A place in PostgreSQL is a database, copied from a template;
Redis has one place only, and is filled again for each run.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from .. import postgresql_server
from ..postgresql_server import PostgresServer
from .peers.base import Place

_START_SEC = 20.0


class RedisServer:
    """A Redis that syncs its log before it answers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.socket = folder / "redis.sock"
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "loglevel": "warning",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SEC
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.02)
        self.pid = self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(_START_SEC)


def reason_unavailable(server: str) -> str:
    """Return why a server cannot run here; an empty text when it can or none is needed."""
    if server == "postgresql":
        return postgresql_server.reason_unavailable()
    if server == "redis" and shutil.which("redis-server") is None:
        return "there is no redis-server"
    return ""


class Servers:
    """The servers, each started when the first place in it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._postgresql: PostgresServer | None = None
        self._redis: RedisServer | None = None
        self._places = 0

    def _postgres(self) -> PostgresServer:
        if self._postgresql is None:
            server = PostgresServer(self._folder / "postgresql")
            server.start()
            self._postgresql = server
        return self._postgresql

    def new_place(self, server: str, template: Place | None = None) -> Place:
        """Return an empty place, or a copy of another one."""
        self._places += 1
        folder = self._folder / f"place-{self._places}"
        if template is None:
            folder.mkdir(mode=0o700)
        else:
            shutil.copytree(template.folder, folder, copy_function=shutil.copy)
        if server == "postgresql":
            name = folder.name.replace("-", "_")
            self._postgres().create(name, template.folder.name.replace("-", "_") if template else None)
            return Place(folder, self._postgres().url(name))
        if server == "redis":
            if self._redis is None:
                self._redis = RedisServer(self._folder / "redis")
            return Place(folder, str(self._redis.socket))
        return Place(folder)

    def settle(self, place: Place) -> None:
        """Do what the server would do on its own after a while: collect the statistics of a filled database."""
        if place.url.startswith("postgresql:"):
            self._postgres().sql(place.folder.name.replace("-", "_"), "VACUUM ANALYZE")

    def remove(self, place: Place) -> None:
        if place.url.startswith("postgresql:"):
            self._postgres().drop(place.folder.name.replace("-", "_"))
        shutil.rmtree(place.folder)

    def pid(self, server: str) -> int | None:
        """Return the pid of a server's first process; None if none is needed."""
        if server == "postgresql":
            return self._postgres().pid
        return self._redis.pid if server == "redis" and self._redis else None

    def stop(self) -> None:
        if self._postgresql is not None:
            self._postgresql.stop()
        if self._redis is not None:
            self._redis.stop()
