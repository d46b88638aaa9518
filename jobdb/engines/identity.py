"""The identity of a registry, and the check that its database is still in its recorded place.

Called by ``jobdb identity``, the relay, subscribers at a broker, tickets and the doctor. Brokers know a database by a
client id and keep messages for it, and tickets name the registry that issued them. A copy under the same name would
receive messages that are meant for the original. So each registry has a random id of its own, which restoring and
copying replace. Nothing replaces it when a file is copied by hand (cp, rsync, a cloned machine), so the database
records its place too (see `place`). Before a database connects to a broker, its place is compared with the recorded
one, and it is refused if they differ: only a person knows whether it was moved or copied.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MovedOrCopied
from .place import PLACE, describe_difference, file_place, parse_facts
from .sql.statements import JOBS
from .statements import Statement, StatementSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .store import Store, Transaction


class IdentityStatements(StatementSet):
    """The statements of ``identity.sql``."""

    identity_settings: Statement
    database_place: Statement
    delete_setting: Statement
    delete_leases: Statement


IDENTITY = IdentityStatements(Path(__file__).with_name("identity.sql"))


REGISTRY_ID = "registry_id"
BROKER_IDENTITY = "broker_identity"
_UNSTABLE_INODES = re.compile(r"fuse|vfat$|msdos$|exfat$|ntfs|9p$|unknown$")


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity and the place of a registry.

    Attributes:
        registry_id: 32 hex digits.
        recorded: the recorded facts of its place; empty if none were recorded.
        current: the current facts.
        problem: how the two differ, as a part of a sentence; None if they are the same place.
    """

    registry_id: str
    recorded: Mapping[str, str]
    current: Mapping[str, str]
    problem: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, under stable names."""
        return {
            "registry_id": self.registry_id,
            "in_place": self.problem is None,
            "problem": self.problem,
            "recorded_place": dict(self.recorded),
            "place": dict(self.current),
        }


def new_registry_id() -> str:
    """Return a new random registry id: 32 hex digits."""
    return secrets.token_hex(16)


def read_identity(store: Store) -> Identity:
    """Read the registry's id, and compare its place with the recorded one; write nothing but a missing id.

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
    recorded = parse_facts(known.get(PLACE))
    return Identity(known[REGISTRY_ID], recorded, here, _difference(store, recorded, here))


def require_place(store: Store) -> str:
    """Refuse a database that may be a copy, before it connects to a broker; record its place if none is recorded.

    Returns:
        The name by which brokers know this database.

    Raises:
        MovedOrCopied: its place is not the recorded one; the message says what to do in either case.
        Busy, StorageFailed, Unavailable: the database cannot be read or written.
    """
    identity = read_identity(store)
    if identity.problem is not None:
        raise MovedOrCopied(
            f"this database is not where it was: {identity.problem}. If it was moved, confirm that with "
            f"'{_command(store)} identity --moved'; if it is a copy, give it an identity of its own with "
            f"'{_command(store)} identity --copy'. Until then it connects to no broker and issues no ticket: it would "
            "receive what is meant for the original"
        )
    if _should_record(store, identity):
        with store.write() as tx:
            tx.run(JOBS.put_setting, name=PLACE, value=json.dumps(dict(identity.current)))
    return broker_identity(store)


def broker_identity(store: Store) -> str:
    """Return the name by which brokers know this database: its registry id, or the name of an older version.

    The older name is valid as long as the registry id is the one that the migration assigned: a copy has another.
    """
    with store.read() as tx:
        known = _settings(tx)
    registry_id = known.get(REGISTRY_ID) or read_identity(store).registry_id
    migrated_id, _, older_name = known.get(BROKER_IDENTITY, "").partition(" ")
    return older_name if older_name and migrated_id == registry_id else registry_id


def accept_place(store: Store) -> Identity:
    """Record the current place: the database was moved and keeps its identity.

    Raises:
        Busy, StorageFailed, Unavailable: the database cannot be written.
    """
    return _record_place(store, None)


def assign_new_identity(store: Store) -> Identity:
    """Give the database a new identity, at its current place.

    Brokers then know it as another subscriber and another relay, and its tickets are those of another registry. The
    relay's lease, which came with the copy, is dropped.

    Raises:
        Busy, StorageFailed, Unavailable: the database cannot be written.
    """
    return _record_place(store, new_registry_id())


# -- the place


def _current_place(store: Store, tx: Transaction) -> dict[str, str]:
    row = tx.one(IDENTITY.database_place)
    if row is not None and row[0] is not None:
        return parse_facts(row[0])
    file = store.file
    assert file is not None
    return file_place(file.path)


def _difference(store: Store, recorded: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    if recorded == here or not recorded:
        return None
    stable_inodes = True
    # The file system's type is not enough: the host that owns a shared disk sees it as local. Databases that are marked
    # as shared are not in WAL mode.
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
    """Return whether to record the place: none is recorded, or the file was renamed on the same machine.

    After a rename another file may take the old name.
    """
    recorded, here = identity.recorded, identity.current
    if not recorded:
        return True
    if recorded.get("path") == here.get("path") or not _is_local(store):
        return False
    return recorded.get("machine") == here.get("machine")


def _is_local(store: Store) -> bool:
    return store.file is not None and store.file.journal == "wal"


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


def _is_registry_id(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"[0-9a-f]{32}", text) is not None


def _command(store: Store) -> str:
    if store.file is None:
        return "jobdb --db URL"
    import shlex

    return f"jobdb --db {shlex.quote(str(store.file.path))}"
