"""What can be told of the open database itself: settings, integrity, WAL and its readers, overrides, master key."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

from ..crypto.master_key import default_key_path
from ..engines.identity import Identity, read_identity
from ..engines.sql.sealer import KEY_ID
from ..engines.sqlite.lock_holders import reader_processes
from ..engines.sqlite.stale_journals import nonempty_journals
from ..engines.sqlite.store import CHECKPOINT_PAGES, SqliteStore
from ..engines.tracing import unwrapped
from ..errors import JobdbError, KeyProblem
from ..filesystem.permissions import file_warning, folder_warning
from ..registry import Registry
from .files import split_advice
from .findings import Report, fix_command_for

_LARGE_WAL_BYTES = 64 << 20
_CHECKPOINT_ATTEMPTS = 10
_CHECKPOINT_RETRY_SEC = 0.1
_MAX_JOBS_TRIED = 20


def check_database(report: Report, registry: Registry, *, full: bool) -> bool:
    """The connection's settings, the file's soundness and the master key. False when it is damaged."""
    store = unwrapped(registry.engine.store)
    if isinstance(store, SqliteStore):
        _check_settings(report, store)
        if not _check_integrity(report, store, full=full):
            return False
        _check_wal(report, store)
    else:
        report.passed("server", store.describe())
    _check_override(report, registry)
    _check_identity(report, registry)
    _check_key(report, registry)
    return True


def _check_settings(report: Report, store: SqliteStore) -> None:
    actual = store.settings()
    shared = "; shared by several hosts" if store.journal == "delete" else ""
    how = "group commit: synced after the lock" if actual["group_commit"] else f"synchronous={actual['synchronous']}"
    report.passed("journal", f"{actual['journal_mode']}, durability {store.durability}, {how}{shared}")


def _check_integrity(report: Report, store: SqliteStore, *, full: bool) -> bool:
    try:
        problems = store.integrity(full=full)
    except JobdbError as error:
        if not _is_corruption(error):
            report.fail("integrity", f"could not be checked: {error}", fix_command_for(report, error))
            return False
        problems = [str(error)]
    if problems:
        report.fail(
            "integrity",
            f"damaged: {problems[0].strip()} ({len(problems)} found); stop the writers before mending",
            f"{report.command} restore BACKUP",
        )
        return False
    report.passed(
        "integrity", "every page and reference is sound" if full else "quick check passed; --full checks more"
    )
    return True


def _is_corruption(error: JobdbError) -> bool:
    """Tell whether the file itself is bad. A disk, a lock or a right that is missing is none of a backup's business."""
    import apsw

    return isinstance(error.__cause__, (apsw.CorruptError, apsw.NotADBError))


def _check_wal(report: Report, store: SqliteStore) -> None:
    if store.journal != "wal":
        return
    # A reader in passing is gone a moment later; one that stands still is not.
    for _ in range(_CHECKPOINT_ATTEMPTS):
        total, copied = store.checkpoint()
        uncopied = total - copied
        if uncopied < CHECKPOINT_PAGES:
            break
        time.sleep(_CHECKPOINT_RETRY_SEC)
    size = _size(Path(f"{store.path}-wal"))
    shown = f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"
    if uncopied <= 0:
        report.passed("wal", f"{shown}, all of it copied into the database")
        return
    pids = reader_processes(store.path)
    who = ", ".join(f"{name} (pid {pid})" for pid, name in pids) or "a process of another user"
    if uncopied < CHECKPOINT_PAGES and size < _LARGE_WAL_BYTES:
        report.passed("wal", f"{shown}; {uncopied} pages wait for {who}, which reads")
        return
    report.warn(
        "wal",
        f"{shown} and growing: {uncopied} pages cannot be copied into the database, because {who} keeps an old read "
        "transaction open",
        f"kill {' '.join(str(pid) for pid, _name in pids)}" if pids else f"fuser -v {store.path}-shm",
    )


def _check_override(report: Report, registry: Registry) -> None:
    reason = registry.engine.setting("unsafe_override")
    if not reason:
        report.passed("override", "never opened on an unsafe file system")
    else:
        report.warn(
            "override",
            f"this database was opened on an unsafe file system by override ({reason}); commits may have been lost. "
            "Move it to a local disk, check it there with --full, then take the note away",
            f"{report.command} init --no-shared",
        )


def _check_identity(report: Report, registry: Registry) -> None:
    found = read_identity(registry.engine.store)
    _check_orphaned_journal(report, found)
    if found.problem is None:
        report.passed("identity", f"registry {found.registry_id}, in its place")
        return
    report.warn(
        "identity",
        f"{found.problem}: it connects to no broker until you say whether it was moved (identity --moved) or is a copy",
        f"{report.command} identity --copy",
    )


def _check_orphaned_journal(report: Report, identity: Identity) -> None:
    """Report a database that was renamed while its log kept the old name: SQLite looks for none there."""
    before, here = identity.recorded.get("path"), identity.here.get("path")
    if not before or not here or before == here or os.path.lexists(before):
        return
    left = nonempty_journals(Path(before))
    if left:
        report.fail(
            "left behind",
            f"the database was renamed from {before} without {' and '.join(map(str, left))}: what is in it is missing "
            "here. Stop whatever has the database open, and give it its old name again",
            None if nonempty_journals(Path(here)) else f"mv -n {shlex.quote(here)} {shlex.quote(before)}",
        )


def _check_key(report: Report, registry: Registry) -> None:
    known = registry.engine.setting(KEY_ID)
    if known is None:
        report.passed("master key", "no secret is sealed yet; the key is made with the first")
        return
    fix_command = "export JOBDB_KEY_FILE=FILE_WITH_THE_KEY"
    try:
        found = registry.engine.vault.key_id
    except KeyProblem as error:
        report.fail("master key", str(error), _fix_key_access(error) or fix_command)
        return
    if found != known:
        report.fail(
            "master key",
            f"the database's secrets are under key {known}, and the key found here is {found}, from "
            f"{registry.engine.vault.master.source}",
            fix_command,
        )
        return
    opened = _unseal_one_token(report, registry)
    if opened is None:
        return
    tried = "a token was opened with it" if opened else "there was no token to open with it"
    report.passed("master key", f"{found} from {registry.engine.vault.master.source}; {tried}")
    _check_key_file(report)


def _fix_key_access(error: KeyProblem) -> str | None:
    """Return the command for a key file that is there and may not be read: another key would not help."""
    denied = error.__cause__
    if not isinstance(denied, PermissionError) or not denied.filename:
        return None
    return f"chmod u+r {shlex.quote(os.fsdecode(denied.filename))}"


def _check_key_file(report: Report) -> None:
    """The mode of the key's own file, when it comes from one."""
    if "JOBDB_KEY" in os.environ or os.environ.get("CREDENTIALS_DIRECTORY") or os.environ.get("JOBDB_KEYRING") == "1":
        return
    path = os.environ.get("JOBDB_KEY_FILE") or default_key_path()
    sentences = [file_warning(path)]
    if "JOBDB_KEY_FILE" not in os.environ:
        sentences.append(folder_warning(os.path.dirname(path)))
    found = [sentence for sentence in sentences if sentence]
    for sentence in found:
        report.warn("key file", *split_advice(sentence))
    if not found:
        report.passed("key file", f"only its owner may use {path}")


def _unseal_one_token(report: Report, registry: Registry) -> bool | None:
    """Open one token, to see that the key works and not only that its name fits; None when that failed."""
    for job in registry.jobs(limit=_MAX_JOBS_TRIED):
        if job.auth == "required":
            try:
                registry.tokens.current(job.job_id)
            except KeyProblem as error:  # the key is the right one, so it is this secret that was changed
                rotate = f"{report.command} token rotate {shlex.quote(job.job_id)}"
                report.fail("master key", str(error), f"{report.command} restore BACKUP" if job.terminal else rotate)
                return None
            return True
    return False


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
