"""The decision whether this user trusts a database found in the current folder, when no database was named.

Called by the registry, by the command line and when a database is created. Uses ``stat`` and a read-only connection.

Without ``--db`` and ``JOBDB_URL`` a command works on ``.jobdb/jobs.db`` in the current folder. That folder can come
from somebody else: a checkout, an archive. Its jobs are instructions to agents, so it is used only if

1. this user created it here, or trusted it with ``jobdb trust``: there is a record of its path and inode in the user's
   configuration folder, beside the master key; or
2. it holds the id of this user's master key, belongs to this user alone by owner and mode, and no git work tree tracks
   it: a database created before there were records, or by a service without a home folder.

To name a database is to trust it: ``--db``, ``JOBDB_URL`` and ``Registry.open(URL)`` are not checked. Prior art: git's
``safe.directory``. The key's id alone would not suffice: anybody who has seen a database of this user knows it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DatabaseMissing, JobdbError, KeyProblem, StorageFailed, UntrustedDatabase
from ..filesystem.atomic_files import write_file
from ..filesystem.permissions import make_private_folder
from ..urls import DEFAULT_URL, parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUP_AND_OTHERS_MASK = 0o077
_MAX_GIT_INDEX_BYTES = 256 << 20


def default_database_path(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the database that is used when none is named; None if ``JOBDB_URL`` names one."""
    return None if environ.get("JOBDB_URL") else parse_url(DEFAULT_URL).path


def require_trust(path: Path) -> None:
    """Refuse a database that was found rather than named, unless this user created or trusted it.

    Args:
        path: the file; a missing one is not refused.

    Raises:
        UntrustedDatabase: nothing shows that it is this user's own.
    """
    file = path.resolve()
    try:
        found = os.stat(file)
        folder = os.stat(file.parent)
    except OSError:
        return  # missing or not accessible: opening it reports that
    if _recorded_inode(file) == found.st_ino:
        return
    why = _distrust_reason(file, found, folder)
    if why is not None:
        raise UntrustedDatabase(
            f"{path} was found in this folder, and {why}: it may have come with a checkout or an archive, and its jobs "
            f"from somebody else. Look at it with 'jobdb --db {path} list'. If it is yours, run 'jobdb trust' here "
            "once, or name it with --db or JOBDB_URL"
        )
    record_trust(file)


def trust(path: Path) -> Path:
    """Record that this user trusts a database.

    Args:
        path: the file.

    Returns:
        Its absolute path.

    Raises:
        DatabaseMissing: there is no file.
        StorageFailed: the record cannot be written.
    """
    file = path.resolve()
    if not file.is_file():
        raise DatabaseMissing(
            f"there is no database at {path}; run 'jobdb trust' in the folder above .jobdb, or name it"
        )
    _write_record(file)
    return file


def needs_key_id(path: Path) -> bool:
    """Return whether a new database of this user has no record, so that its key's id has to identify it."""
    if (path.parent.name, path.name) != (".jobdb", "jobs.db"):
        return False
    file = path.resolve()
    return _recorded_inode(file) != os.stat(file).st_ino


def record_trust(path: Path) -> None:
    """Record a database that this user has just created, if it can be used without being named."""
    if (path.parent.name, path.name) == (".jobdb", "jobs.db"):
        with contextlib.suppress(OSError, JobdbError):  # no home folder: the master key's id has to suffice
            _write_record(path.resolve())


def _record_path(file: Path) -> Path:
    import hashlib

    from ..crypto.master_key import default_key_path

    name = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
    return Path(default_key_path()).parent / "trusted" / name


def _recorded_inode(file: Path) -> int | None:
    """Return the inode recorded for a path. Device numbers are not recorded: some change with a restart."""
    try:
        inode, _, place = _record_path(file).read_bytes().rstrip(b"\n").partition(b" ")
    except (OSError, KeyProblem):
        return None
    return int(inode) if place == os.fsencode(file) and inode.isdigit() else None


def _write_record(file: Path) -> None:
    record_file = _record_path(file)
    text = b"%d %s\n" % (os.stat(file).st_ino, os.fsencode(file))
    make_private_folder(record_file.parent)
    try:
        write_file(record_file, text, follow_folder_link=True)
    except OSError as error:
        raise StorageFailed(
            f"cannot record the trust in {record_file.parent}: {error.strerror}; check its owner and mode"
        ) from error


def _distrust_reason(file: Path, found: os.stat_result, folder: os.stat_result) -> str | None:
    """Return the reason not to trust a database without a record; None if its key shows that it is this user's."""
    users = {os.geteuid(), _invoking_uid()}
    if found.st_uid not in users or folder.st_uid not in users:
        return "it belongs to another user"
    if (found.st_mode | folder.st_mode) & _GROUP_AND_OTHERS_MASK:
        return "nothing shows that you created it (others may access its folder or the file)"
    if _is_tracked_by_git(file):
        return "git tracks it"
    if not _has_own_key_id(file):
        return "it does not have the id of your master key"
    return None


def _invoking_uid() -> int:
    """Return the id of the user who called sudo, as git does; otherwise that of this user."""
    sudo_uid = os.environ.get("SUDO_UID", "")
    return int(sudo_uid) if os.geteuid() == 0 and sudo_uid.isdigit() else os.geteuid()


def _is_tracked_by_git(file: Path) -> bool:
    """Return whether the index of an enclosing git work tree may contain the file; True in case of doubt."""
    for folder in file.parents:
        git = folder / ".git"
        if not os.path.lexists(git):
            continue
        try:
            if git.is_file():  # a linked work tree
                git = folder / git.read_text("utf-8").removeprefix("gitdir:").strip()
            index = git / "index"
            if index.stat().st_size > _MAX_GIT_INDEX_BYTES or file.name.encode() + b"\0" in index.read_bytes():
                return True
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            return True
    return False


def _has_own_key_id(file: Path) -> bool:
    from ..crypto.master_key import find_master_key

    try:
        ours = find_master_key(create=False).key_id
        return _key_id(file) == ours
    except JobdbError:
        return False


def _key_id(file: Path) -> str | None:
    import apsw

    from ..filesystem.unsafe_files import refuse_unsafe_companions
    from .sql.sealer import KEY_ID
    from .sqlite.temporary_connection import temporary_connection

    refuse_unsafe_companions(file)
    try:
        with temporary_connection(file, busy_sec=5.0) as connection:
            row = connection.execute("SELECT value FROM settings WHERE name = ?", (KEY_ID,)).fetchone()
    except apsw.Error:
        return None
    return None if row is None else str(row[0])
