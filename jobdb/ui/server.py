"""Starting the site: checks, the socket, the secret address, Datasette with what is configured here and no more."""

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
class Site:
    """Where the site is.

    Attributes:
        address: what to open in the browser; it holds the key and is for nobody else.
        port: the port on the loopback interface.
    """

    address: str
    port: int


def serve(url: DatabaseUrl, *, port: int, ready: Callable[[Site], None]) -> None:
    """Serves the site until the process is interrupted.

    Args:
        url: the registry; a SQLite file.
        port: the port on the loopback interface; 0 takes a free one.
        ready: called once connections are taken.

    Raises:
        InvalidInput: the registry is not in SQLite.
        DatabaseMissing, NotAJobdbDatabase, SchemaMismatch: there is none, or not of this version.
        Refused: the port is in use.
        Unavailable: Datasette is not installed.
    """
    path = _check_database(url)
    os.environ["DATASETTE_LOAD_PLUGINS"] = ""  # or importing Datasette runs every plugin that happens to be installed
    try:
        import uvicorn
        from datasette.app import Datasette
    except ImportError as error:
        raise Unavailable("the web view needs Datasette, which is not installed: pip install 'jobdb[ui]'") from error
    listening = _listen(port)
    try:
        number = listening.getsockname()[1]
        key = secrets.token_urlsafe(24)
        site = AccessControl(_application(Datasette, path), key=key, port=number)
        server = uvicorn.Server(uvicorn.Config(site, log_level="warning", lifespan="on", access_log=False))
        ready(Site(f"http://{HOST}:{number}/?key={key}", number))
        server.run(sockets=[listening])
    finally:
        listening.close()


def _check_database(url: DatabaseUrl) -> Path:
    path = url.path
    if path is None:
        raise InvalidInput(f"{url} is not a SQLite database; 'jobdb copy' makes one of it, which 'jobdb ui' can show")
    path = path.absolute()
    if not path.exists():
        raise DatabaseMissing(f"there is no database at {path}; make one with 'jobdb --db {path} init'")
    if any(mark in str(path) for mark in "?#%"):
        raise InvalidInput(f"{path} has one of ?, # and % in it, which a web address cannot carry; link it elsewhere")
    header = read_header(path)
    if header.application_id != APPLICATION_ID:
        raise NotAJobdbDatabase(f"{path} is no jobdb database; name another file with --db")
    if header.user_version != SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} has schema version {header.user_version} and this jobdb works with {SCHEMA_VERSION}; "
            f"run 'jobdb --db {path} doctor'"
        )
    file = path.resolve()
    if header.wal and placement_for(file.parent, file=file).journal != "wal":
        raise Refused(f"{path} is in WAL mode on a file system where WAL loses data; run 'jobdb --db {path} doctor'")
    return path


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise Refused(f"port {port} cannot be used: {error.strerror}; --port 0 takes a free one") from error
    listening.listen(64)
    return listening


def _application(datasette: Any, path: Path) -> Any:
    """Datasette on this file, without the plugins that happen to be installed: they might show more."""
    from datasette.database import Database
    from datasette.plugins import pm

    from . import datasette_plugin

    for plugin, _distribution in list(pm.list_plugin_distinfo()):
        pm.unregister(plugin)
    if not pm.is_registered(datasette_plugin):
        pm.unregister(name="datasette.handle_exception")  # prints every variable on the terminal; ours says it shorter
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
