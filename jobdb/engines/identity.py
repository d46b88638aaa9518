"""The identity of a registry, and the check that its database is still where it was.

Brokers know a database by a client id and keep messages for it, and tickets name the registry that issued them. A copy
under the same id would take what is meant for the original. So each registry has a random id of its own, which a
restored backup and a copy replace; and because nobody replaces it when a file is copied by hand (cp, rsync, a cloned
machine), the database records its place too. Before it connects to a broker that place is compared with the current
one, and a difference is refused: only a person knows whether the database was moved or copied.

A file's place is its inode, the machine and the host's name; the path counts only where another file is at the recorded
path. Device numbers change with a restart and are not compared. In a container the machine and the host's name change
with each start and are left out; on a network file system they differ rightly. On PostgreSQL the place is the server's
identifier, where the role may ask for it, and the object identifiers of database and table. A physical copy of a whole
server has the same ones: it must be told what it is.

Called by ``jobdb identity``, the relay, subscribers at a broker, tickets, the doctor and the migrations.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MovedOrCopied
from .sql.statements import JOBS
from .statements import Statement, StatementSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .store import Store, Transaction


class IdentityStatements(StatementSet):
    """The statements of ``identity.sql``."""

    identity_settings: Statement
    database_place: Statement
    delete_setting: Statement
    delete_leases: Statement


IDENTITY = IdentityStatements(Path(__file__).with_name("identity.sql"))


REGISTRY_ID = "registry_id"
PLACE = "place"
BROKER_IDENTITY = "broker_identity"
_CONTAINER_SIGNS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container", "/run/host/container-manager")
_UNSTABLE_INODES = re.compile(r"fuse|vfat$|msdos$|exfat$|ntfs|9p$|unknown$")


@dataclass(frozen=True, slots=True)
class Identity:
    """A registry's id, and the place of its database.

    Attributes:
        registry_id: 32 hex digits.
        recorded: the recorded place; empty when none was recorded.
        here: the current place.
        problem: how the two differ, as a part of a sentence; None where they are the same.
    """

    registry_id: str
    recorded: Mapping[str, str]
    here: Mapping[str, str]
    problem: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON, under stable names."""
        return {
            "registry_id": self.registry_id,
            "in_place": self.problem is None,
            "problem": self.problem,
            "recorded_place": dict(self.recorded),
            "place": dict(self.here),
        }


def new_registry_id() -> str:
    """Make the id of a new registry: 32 random hex digits."""
    return secrets.token_hex(16)


def read_identity(store: Store) -> Identity:
    """Read the registry's id, and compare the current place with the recorded one. Write nothing but a missing id.

    Raises:
        Busy, StorageFailed, Unavailable: the database cannot be read.
    """
    with store.read() as tx:
        known = _settings(tx)
        here = _current_place(store, tx)
    if not _is_registry_id(known.get(REGISTRY_ID)):
        with store.write() as tx:
            known = _settings(tx)
            if not _is_registry_id(known.get(REGISTRY_ID)):
                tx.run(JOBS.put_setting, name=REGISTRY_ID, value=new_registry_id())
                known = _settings(tx)
    recorded = _parse_facts(known.get(PLACE))
    return Identity(known[REGISTRY_ID], recorded, here, _difference(store, recorded, here))


def require_place(store: Store) -> str:
    """Refuse a database that may be a copy, before it connects to a broker; record its place where none is recorded.

    Returns:
        The id by which brokers know this database.

    Raises:
        MovedOrCopied: it is not where it was; the message names the two ways out.
        Busy, StorageFailed, Unavailable: the database cannot be read or written.
    """
    identity = read_identity(store)
    if identity.problem is not None:
        raise MovedOrCopied(
            f"this database is not where it was: {identity.problem}. If it was moved, say so with "
            f"'{_command(store)} identity --moved'; if it is a copy, give it an identity of its own with "
            f"'{_command(store)} identity --copy'. Until then it connects to no broker and issues no ticket: it would "
            "take what is meant for the original"
        )
    if _should_record(store, identity):
        with store.write() as tx:
            tx.run(JOBS.put_setting, name=PLACE, value=json.dumps(dict(identity.here)))
    return broker_identity(store)


def broker_identity(store: Store) -> str:
    """Return the id by which brokers know this database: its registry id, or the one an older version connected with.

    The older one is used for as long as the registry id is the one that the migration gave: a copy has another.
    """
    with store.read() as tx:
        known = _settings(tx)
    registry_id = known.get(REGISTRY_ID) or read_identity(store).registry_id
    of, _, older = known.get(BROKER_IDENTITY, "").partition(" ")
    return older if older and of == registry_id else registry_id


def accept_place(store: Store) -> Identity:
    """Record the current place as the right one: the database was moved and keeps its identity.

    Raises:
        Busy, StorageFailed, Unavailable: the database cannot be written.
    """
    return _record_place(store, None)


def assign_new_identity(store: Store) -> Identity:
    """Give the database an identity of its own, at its current place.

    Brokers then know it as another subscriber and another relay, and its tickets are those of another registry. The
    relay's lease, which came with the copy, is dropped.

    Raises:
        Busy, StorageFailed, Unavailable: the database cannot be written.
    """
    return _record_place(store, new_registry_id())


def file_place(path: Path) -> dict[str, str]:
    """Return the place of a database file, as facts by name.

    Raises:
        OSError: it is not there.
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
    """Compare two places; a fact that one side does not know is not compared. Pure but for what it is given.

    Args:
        recorded: the recorded place.
        here: the current one.
        stable_inodes: the file system gives a file the same inode number after the next mount.
        local_filesystem: the file system is this machine's own.
        is_another_file: tells whether a path leads to a file that is not this one.

    Returns:
        How they differ, as a part of a sentence; None where they do not.
    """

    def differ(name: str) -> bool:
        return bool(recorded.get(name) and here.get(name)) and recorded[name] != here[name]

    if differ("cluster"):
        return "it was recorded in another PostgreSQL server"
    if differ("database"):
        return "it was recorded in another database of the server"
    if differ("table"):
        return "its tables were created again since"
    if local_filesystem and differ("machine"):
        return f"it was recorded on another machine ({recorded.get('host') or 'unnamed'})"
    if local_filesystem and differ("host"):
        return f"it was recorded on host {recorded['host']}, and this is {here['host']}"
    if stable_inodes and differ("inode"):
        return f"it was recorded as another file ({recorded.get('path')}, inode {recorded['inode']})"
    if differ("path") and is_another_file(recorded["path"]):
        return f"the file as which it was recorded, {recorded['path']}, is there as well"
    return None


# -- the facts


def _current_place(store: Store, tx: Transaction) -> dict[str, str]:
    row = tx.one(IDENTITY.database_place)
    if row is not None and row[0] is not None:
        return _parse_facts(row[0])
    file = store.file
    assert file is not None  # a database without a place of its own is one file
    return file_place(file.path)


def _difference(store: Store, recorded: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    if recorded == here or not recorded:
        return None
    stable_inodes = True
    # Not the folder alone tells: the host that owns the disk shares it too, and marked databases stay out of WAL there.
    local_filesystem = _is_local(store)
    if "path" in here:
        from ..filesystem.placement import placement_for

        found = placement_for(os.path.dirname(here["path"]))
        stable_inodes = _UNSTABLE_INODES.match(found.fs_type) is None
        if found.fs_type in ("cifs", "smb3"):
            stable_inodes = "serverino" in found.options

    def is_another_file(path: str) -> bool:
        try:
            other = os.stat(path)
            own = os.stat(here["path"])
        except OSError:
            return False
        return stat.S_ISREG(other.st_mode) and not os.path.samestat(other, own)

    return describe_difference(
        recorded, here, stable_inodes=stable_inodes, local_filesystem=local_filesystem, is_another_file=is_another_file
    )


def _should_record(store: Store, identity: Identity) -> bool:
    """Return whether to record the place: none is recorded, or the file was renamed and its old name is free."""
    recorded, here = identity.recorded, identity.here
    if not recorded:
        return True
    if recorded.get("path") == here.get("path") or not _is_local(store):
        return False
    return recorded.get("machine") == here.get("machine")


def _is_local(store: Store) -> bool:
    return store.file is not None and store.file.journal == "wal"


def _machine_digest() -> str:
    """Return a digest of the machine's id, which outlives a restart; the id itself is not to be shown around.

    Source: machine-id(5).
    """
    for file in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(file, "rb") as opened:
                machine = opened.read(64).strip()
        except OSError:
            continue
        if re.fullmatch(rb"[0-9a-f]{32}", machine):
            return hmac.digest(machine, b"jobdb place", "sha256").hex()[:32]
    return ""


def _in_container() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(os.path.exists(sign) for sign in _CONTAINER_SIGNS)


# -- the settings


def _record_place(store: Store, registry_id: str | None) -> Identity:
    with store.write() as tx:
        if registry_id is not None:
            tx.run(JOBS.put_setting, name=REGISTRY_ID, value=registry_id)
            tx.run(IDENTITY.delete_setting, name=BROKER_IDENTITY)
            tx.run(IDENTITY.delete_leases)
        tx.run(JOBS.put_setting, name=PLACE, value=json.dumps(_current_place(store, tx)))
    return read_identity(store)


def _settings(tx: Transaction) -> dict[str, str]:
    return dict(tx.all(IDENTITY.identity_settings))


def _parse_facts(text: str | None) -> dict[str, str]:
    """Return the recorded place; an empty one where the text is not ours."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _is_registry_id(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"[0-9a-f]{32}", text) is not None


def _command(store: Store) -> str:
    if store.file is None:
        return "jobdb --db URL"
    import shlex

    return f"jobdb --db {shlex.quote(str(store.file.path))}"
