"""The checks of the open database: settings, integrity, WAL and its readers, overrides, identity, master key.

Called by ``doctor.diagnose``; calls an open registry, its engine and the file system.
"""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

from ..crypto.master_key import MasterKey
from ..engines.identity import Identity, read_identity
from ..engines.sql.sealer import KEY_ID
from ..engines.sqlite.lock_holders import reader_processes
from ..engines.sqlite.stale_journals import nonempty_journals
from ..engines.sqlite.store import CHECKPOINT_PAGES
from ..engines.store import DatabaseFile
from ..errors import JobdbError, KeyProblem
from ..registry import Registry
from .files import split_mode_warning
from .findings import DoctorReport, describe_error, fix_command_for, is_damage

_LARGE_WAL_BYTES = 64 << 20
_CHECKPOINT_ATTEMPTS = 10
_CHECKPOINT_RETRY_SEC = 0.1
_MAX_TOKENS_TRIED = 20


def check_database(report: DoctorReport, registry: Registry, *, full: bool) -> bool:
    """Check settings, integrity, WAL, override, identity and master key; return False if the database is damaged."""
    file = registry.store.file
    if file is None:
        report.passed("server", registry.store.describe())
    else:
        _check_settings(report, file)
        if not _check_integrity(report, file, full=full):
            return False
        _check_wal(report, file)
    _check_override(report, registry)
    _check_identity(report, registry)
    _check_key(report, registry)
    return True


def _check_settings(report: DoctorReport, file: DatabaseFile) -> None:
    actual = file.settings()
    shared = "; shared by several hosts" if file.journal == "delete" else ""
    sync = "group commit: synced after the lock" if actual["group_commit"] else f"synchronous={actual['synchronous']}"
    report.passed("journal", f"{actual['journal_mode']}, durability {file.durability}, {sync}{shared}")


def _check_integrity(report: DoctorReport, file: DatabaseFile, *, full: bool) -> bool:
    try:
        problems = file.integrity(full=full)
    except JobdbError as error:
        if not is_damage(error):
            message = f"could not be checked: {describe_error(error)}"
            report.fail("integrity", message, fix_command_for(report, error))
            return False
        problems = [describe_error(error)]
    if problems:
        report.fail(
            "integrity",
            f"damaged: {problems[0].strip()} ({len(problems)} found); stop the writers before fixing it",
            f"{report.command} restore BACKUP",
        )
        return False
    report.passed(
        "integrity", "every page and reference is sound" if full else "quick check passed; --full checks more"
    )
    return True


def _check_wal(report: DoctorReport, file: DatabaseFile) -> None:
    if file.journal != "wal":
        return
    # A short read transaction soon ends; an old one that is kept open does not.
    for _ in range(_CHECKPOINT_ATTEMPTS):
        total, copied = file.checkpoint()
        uncopied = total - copied
        if uncopied < CHECKPOINT_PAGES:
            break
        time.sleep(_CHECKPOINT_RETRY_SEC)
    size = _size(Path(f"{file.path}-wal"))
    shown = f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"
    if uncopied <= 0:
        report.passed("wal", f"{shown}, all of it copied into the database")
        return
    readers = reader_processes(file.path)
    named = ", ".join(f"{name} (pid {pid})" for pid, name in readers) or "a process of another user"
    if uncopied < CHECKPOINT_PAGES and size < _LARGE_WAL_BYTES:
        report.passed("wal", f"{shown}; {uncopied} pages wait for {named}, which is reading")
        return
    shm = shlex.quote(f"{file.path}-shm")
    report.warn(
        "wal",
        f"{shown} and growing: {uncopied} pages cannot be copied into the database, because {named} keeps an old read "
        "transaction open",
        f"kill {' '.join(str(pid) for pid, _name in readers)}" if readers else f"fuser -v {shm}",
    )


def _check_override(report: DoctorReport, registry: Registry) -> None:
    reason = registry.engine.setting("unsafe_override")
    if not reason:
        report.passed("override", "never opened on an unsafe file system")
    else:
        report.warn(
            "override",
            f"this database was opened on an unsafe file system by override ({reason}); commits may have been lost. "
            "Move it to a local disk, check it there with --full, then remove this mark",
            f"{report.command} init --no-shared",
        )


def _check_identity(report: DoctorReport, registry: Registry) -> None:
    identity = read_identity(registry.store)
    _check_orphaned_journal(report, identity)
    if identity.problem is None:
        report.passed("identity", f"registry {identity.registry_id}, in its place")
        return
    report.warn(
        "identity",
        f"{identity.problem}: it connects to no broker until you say whether it was moved (identity --moved) or is a "
        "copy",
        f"{report.command} identity --copy",
    )


def _check_orphaned_journal(report: DoctorReport, identity: Identity) -> None:
    """Report a database that was renamed while its journal kept the old name, where SQLite does not find it."""
    before, now = identity.recorded.get("path"), identity.current.get("path")
    if not before or not now or before == now or os.path.lexists(before):
        return
    left = nonempty_journals(Path(before))
    if left:
        report.fail(
            "left behind",
            f"the database was renamed from {before} without {' and '.join(map(str, left))}: their content is missing "
            "here. Stop every process that has the database open, and restore its old name",
            None if nonempty_journals(Path(now)) else f"mv -n {shlex.quote(now)} {shlex.quote(before)}",
        )


def _check_key(report: DoctorReport, registry: Registry) -> None:
    known = registry.engine.setting(KEY_ID)
    if known is None:
        report.passed("master key", "no secret is sealed yet; the key is created with the first")
        return
    fix_command = "export JOBDB_KEY_FILE=FILE_WITH_THE_KEY"
    try:
        master = registry.engine.vault.master
    except KeyProblem as error:
        report.fail("master key", describe_error(error), _fix_key_access(error) or fix_command)
        return
    if master.key_id != known:
        report.fail(
            "master key",
            f"the database's secrets are sealed under key {known}, but the key found here is {master.key_id}, from "
            f"{master.source}",
            fix_command,
        )
        return
    unsealed = _unseal_one_token(report, registry)
    if unsealed is None:
        return
    tried = "a token was unsealed with it" if unsealed else "there was no token to unseal with it"
    report.passed("master key", f"{master.key_id} from {master.source}; {tried}")
    _check_key_file(report, master)


def _fix_key_access(error: KeyProblem) -> str | None:
    """Return the command for a key file that exists but is not readable, in which case another key would not help."""
    denied = error.__cause__
    if not isinstance(denied, PermissionError) or not denied.filename:
        return None
    return f"chmod u+r {shlex.quote(os.fsdecode(denied.filename))}"


def _check_key_file(report: DoctorReport, master: MasterKey) -> None:
    """Check the mode of the key's file, if it comes from one that its user must keep private."""
    if master.private_file is None:
        return
    sentences = master.privacy_warnings()
    for sentence in sentences:
        report.warn("key file", *split_mode_warning(sentence))
    if not sentences:
        report.passed("key file", f"only its owner may use {master.private_file}")


def _unseal_one_token(report: DoctorReport, registry: Registry) -> bool | None:
    """Unseal one token, to verify that the key works and not only that its id matches.

    Returns:
        True if that worked, False if no job has a token, None if it failed, which is reported.
    """
    for job in registry.jobs(limit=_MAX_TOKENS_TRIED):
        if job.auth == "required":
            try:
                registry.tokens.current(job.job_id)
            except KeyProblem as error:  # the key is the right one, so this secret was changed
                rotate = f"{report.command} token rotate {shlex.quote(job.job_id)}"
                fix_command = f"{report.command} restore BACKUP" if job.terminal else rotate
                report.fail("master key", describe_error(error), fix_command)
                return None
            return True
    return False


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
