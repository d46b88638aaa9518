"""The web server: the checks, the socket, the secret address, and Datasette with only the configuration made here.

Called by ``jobdb ui``. Reads the database's header but never opens the database itself: Datasette does.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobdb.schema import APPLICATION_ID, SCHEMA_VERSION

from ..engines.sqlite.header import read_header
from ..errors import DatabaseMissing, InvalidInput, NotAJobdbDatabase, Refused, SchemaMismatch, Unavailable
from ..filesystem.placement import placement_for
from ..urls import DatabaseUrl
from .access import AccessControl

HOST = "127.0.0.1"
_SETTINGS = {
    "default_allow_sql": False,
    "allow_download": False,
    "suggest_facets": False,
    "default_page_size": 50,
    "max_returned_rows": 1000,
    "sql_time_limit_ms": 3000,
    "facet_time_limit_ms": 1000,
    "num_sql_threads": 3,
}


@dataclass(frozen=True, slots=True)
class SiteAddress:
    """The address of a running site.

    Attributes:
        url: the address to open in the browser; it contains the key, so nobody else may see it.
        port: the port on the loopback interface.
    """

    url: str
    port: int


def serve(url: DatabaseUrl, *, port: int, ready: Callable[[SiteAddress], None]) -> None:
    """Serve the site until the process is interrupted.

    Args:
        url: the registry, a SQLite file.
        port: the port on the loopback interface; 0 for any free port.
        ready: called as soon as connections are accepted.

    Raises:
        InvalidInput: the registry is not in SQLite, or its file name has characters that a web address cannot contain.
        DatabaseMissing, NotAJobdbDatabase, SchemaMismatch: there is no database, or not one of this version.
        Refused: the port is in use, or the database is in WAL mode where WAL loses data.
        Unavailable: Datasette is not installed.

    Example:
        serve(parse_url("jobs.db"), port=0, ready=lambda site: print(site.url))
    """
    path = _check_database(url)
    os.environ["DATASETTE_LOAD_PLUGINS"] = ""  # otherwise importing Datasette runs every installed plugin
    try:
        import uvicorn
        from datasette.app import Datasette
    except ImportError as error:
        raise Unavailable("the web view needs Datasette, which is not installed: pip install 'jobdb[ui]'") from error
    listening = _listen(port)
    try:
        number = listening.getsockname()[1]
        key = secrets.token_urlsafe(24)
        app = AccessControl(_datasette_app(Datasette, path), key=key, port=number)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False))
        ready(SiteAddress(f"http://{HOST}:{number}/?key={key}", number))
        server.run(sockets=[listening])
    finally:
        listening.close()


def _check_database(url: DatabaseUrl) -> Path:
    path = url.path
    if path is None:
        raise InvalidInput(
            f"{url} is not a SQLite database",
            advice="copy it into one with copy_registry(), and show that",
            command="copy it into one with 'jobdb copy', and show that",
        )
    path = path.absolute()
    if not path.exists():
        raise DatabaseMissing(
            f"there is no database at {path}",
            advice="create one with Registry.open(..., create=True)",
            command=f"create one with 'jobdb --db {path} init'",
        )
    if any(mark in str(path) for mark in "?#%"):
        raise InvalidInput(f"{path} contains ?, # or %, which a web address cannot contain; link it elsewhere")
    ask_doctor = {"advice": "jobdb.doctor says how to fix it", "command": f"run 'jobdb --db {path} doctor'"}
    header = read_header(path)
    if header.application_id != APPLICATION_ID:
        raise NotAJobdbDatabase(
            f"{path} is not a jobdb database", advice="name another file", command="name another file with --db"
        )
    if header.user_version != SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} has schema version {header.user_version}, and this jobdb works with {SCHEMA_VERSION}",
            **ask_doctor,
        )
    file = path.resolve()
    if header.wal and placement_for(file.parent, file=file).journal != "wal":
        raise Refused(f"{path} is in WAL mode on a file system where WAL loses data", **ask_doctor)
    return path


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise Refused(
            f"port {port} cannot be used: {error.strerror}",
            advice="port=0 takes a free one",
            command="--port 0 takes a free one",
        ) from error
    listening.listen(64)
    return listening


def _datasette_app(datasette: Any, path: Path) -> Any:
    """Return Datasette's application on this file, without other installed plugins, which might show more."""
    from datasette.database import Database
    from datasette.plugins import pm

    from . import datasette_plugin

    for plugin, _distribution in list(pm.list_plugin_distinfo()):
        pm.unregister(plugin)
    if not pm.is_registered(datasette_plugin):
        pm.unregister(name="datasette.handle_exception")  # it prints every variable on the terminal
        pm.register(datasette_plugin, "jobdb")
    served = datasette(
        [],
        settings=_SETTINGS,
        metadata=datasette_plugin.metadata(),
        template_dir=str(Path(__file__).parent / "templates"),
    )
    served.remove_database("_memory")
    served.add_database(Database(served, path=str(path), is_mutable=True), name=datasette_plugin.DATABASE)
    return served.app()
