"""The place of a database: the facts by which it is recognized, and the comparison of two places.

Called by `identity`, and by the migrations, which record the place of a new file. A place is identified, for a file, by
its inode, the machine and the host name; by its path only if another file is found there now. Device numbers change
with a restart and are not compared. In a container the machine and the host name change with each start and are left
out; on a network file system they differ legitimately. On PostgreSQL a place is identified by the server's identifier,
if the role may read it, and the object identifiers of database and table. A physical copy of a whole server has the
same ones: a person must say that it is a copy.
"""

from __future__ import annotations

import hmac
import json
import os
from typing import TYPE_CHECKING

from ..system.identifiers import machine_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PLACE = "place"
"""The setting under which a database records its place."""
_CONTAINER_SIGNS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container", "/run/host/container-manager")


def file_place(path: Path) -> dict[str, str]:
    """Return the facts of a database file's place.

    Raises:
        OSError: it does not exist.
    """
    path = path.resolve()
    facts = {"path": str(path), "inode": str(os.stat(path).st_ino), "machine": "", "host": ""}
    if not _in_container():
        facts["machine"] = _machine_digest()
        facts["host"] = os.uname().nodename
    return facts


def describe_difference(
    recorded: Mapping[str, str],
    here: Mapping[str, str],
    *,
    stable_inodes: bool,
    local_filesystem: bool,
    is_another_file: Callable[[str], bool],
) -> str | None:
    """Compare two places; a fact that one side does not know is not compared. Pure, except for ``is_another_file``.

    Args:
        recorded: the recorded facts.
        here: the current ones.
        stable_inodes: the file system keeps a file's inode number across mounts.
        local_filesystem: the file system belongs to this machine.
        is_another_file: returns whether a path leads to another file.

    Returns:
        The difference, as a part of a sentence; None if there is none.
    """

    def differ(name: str) -> bool:
        return bool(recorded.get(name) and here.get(name)) and recorded[name] != here[name]

    if differ("cluster"):
        return "it was recorded in another PostgreSQL server"
    if differ("database"):
        return "it was recorded in another database of the server"
    if differ("table"):
        return "its tables have been created again since"
    if local_filesystem and differ("machine"):
        return f"it was recorded on another machine ({recorded.get('host') or 'unnamed'})"
    if local_filesystem and differ("host"):
        return f"it was recorded on host {recorded['host']}, and this is {here['host']}"
    if stable_inodes and differ("inode"):
        return f"it was recorded as another file ({recorded.get('path')}, inode {recorded['inode']})"
    if differ("path") and is_another_file(recorded["path"]):
        return f"the file that it was recorded as, {recorded['path']}, is there as well"
    return None


def parse_facts(text: str | None) -> dict[str, str]:
    """Parse a recorded place; return an empty one if the text is invalid."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _machine_digest() -> str:
    """Return a digest of the machine's id, which is itself confidential; empty if there is none."""
    machine = machine_id()
    return hmac.digest(machine.encode("ascii"), b"jobdb place", "sha256").hex()[:32] if machine else ""


def _in_container() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(os.path.exists(sign) for sign in _CONTAINER_SIGNS)
