"""The check of NFS exports for the option `async`, with which a server acknowledges writes before they are on disk.

Called by the doctor and by the probe. A commit on such an export is acknowledged, and lost when the server is reset. No
client can see the option: it is only in the server's table of exports. If this host is the server, that table is read;
otherwise a person must check. Source: exports(5), "async"; /var/lib/nfs/etab, the table in effect, kept by exportfs(8).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from .mounts import unescape

if TYPE_CHECKING:
    from .placement import Placement

ETAB = Path("/var/lib/nfs/etab")
_NFS_TYPES = ("nfs", "nfs4")
_CHECK_ADVICE = (
    "on the NFS server run 'exportfs -v': the export must say sync; with async set it to sync in /etc/exports"
)
_SYNC_ADVICE = "set sync instead of async in /etc/exports, then run 'exportfs -ra'"


class Export(NamedTuple):
    """One line of the table of exports.

    Attributes:
        path: the folder on the server.
        client: the clients that may mount it.
        options: such as `rw` and `sync`; the table always names one of `sync` and `async`.
    """

    path: str
    client: str
    options: tuple[str, ...]


class ExportFinding(NamedTuple):
    """A finding about the export behind a folder.

    Attributes:
        level: "ok", "warn" (it cannot be determined here) or "fail" (acknowledged commits can be lost).
        message: the finding, in one sentence.
        advice: what to do about it; None if ok.
    """

    level: Literal["ok", "warn", "fail"]
    message: str
    advice: str | None


def parse_etab(text: str) -> tuple[Export, ...]:
    """Parse a table of exports; invalid lines are skipped."""
    found = []
    for line in text.splitlines():
        path, separator, rest = line.strip().partition("\t")
        client, opened, options = rest.rpartition("(")
        if separator and opened and path.startswith("/"):
            found.append(Export(unescape(path), client, tuple(options.rstrip(") \t").split(","))))
    return tuple(found)


def read_etab(path: Path = ETAB) -> tuple[Export, ...]:
    """Read this host's table of exports; return an empty one if there is none or it is not readable."""
    try:
        return parse_etab(path.read_text("utf-8", "surrogateescape"))
    except OSError:
        return ()


def check_export(placement: Placement, exports: tuple[Export, ...] | None = None) -> ExportFinding | None:
    """Check the export by which a folder is mounted, or is shared with other hosts.

    Args:
        placement: the folder's placement.
        exports: this host's exports; None reads them.

    Returns:
        The finding; None for a folder that has nothing to do with NFS.
    """
    known = read_etab() if exports is None else exports
    if placement.fs_type not in _NFS_TYPES:
        found = _exports_covering(os.path.realpath(placement.folder), known)
        return _finding_for(found, "this host exports the folder by NFS") if found else None
    path = placement.source.partition(":/")[2] if ":/" in placement.source else ""
    if path or placement.source.endswith(":/"):
        found = _exports_for_mount(f"/{path}", known) if _is_this_host(placement) else ()
        if found:
            return _finding_for(found, "this host is the NFS server")
    return ExportFinding(
        "warn",
        f"the server's export of {placement.source or 'this folder'} must be sync, which cannot be seen from here: "
        "with async the server acknowledges commits that it loses when it is reset",
        _CHECK_ADVICE,
    )


def _finding_for(found: tuple[Export, ...], who: str) -> ExportFinding:
    lossy = [export for export in found if "async" in export.options]
    if not lossy:
        return ExportFinding("ok", f"{who}, and exports {found[0].path} with sync", None)
    return ExportFinding(
        "fail",
        f"{who}, and exports {lossy[0].path} to {lossy[0].client} with async: commits that were acknowledged are lost "
        "when it is reset",
        _SYNC_ADVICE,
    )


def _exports_for_mount(path: str, exports: tuple[Export, ...]) -> tuple[Export, ...]:
    """Return the exports for a path that a client mounted; with NFS 4 it may be relative to the one with fsid=0."""
    roots = [export.path for export in exports if {"fsid=0", "fsid=root"} & set(export.options)]
    for top in ("/", *roots):
        if found := _exports_covering(os.path.normpath(os.path.join(top, path.lstrip("/"))), exports):
            return found
    return ()


def _exports_covering(folder: str, exports: tuple[Export, ...]) -> tuple[Export, ...]:
    """Return the exports, to any client, of the nearest exported folder at or above a folder."""
    above = [export for export in exports if _contains(export.path, folder)]
    nearest = max((len(export.path) for export in above), default=0)
    return tuple(export for export in above if len(export.path) == nearest)


def _contains(top: str, folder: str) -> bool:
    return os.path.commonpath((top, folder)) == os.path.normpath(top)


def _is_this_host(placement: Placement) -> bool:
    """Return whether the server's address belongs to this host: a socket can be bound only to such an address."""
    address = next((option[5:] for option in placement.options if option.startswith("addr=")), "")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if not address:
        return False
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
