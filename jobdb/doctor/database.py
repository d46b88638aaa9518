"""What can be told of the open database itself: settings, integrity, WAL, master key."""

from __future__ import annotations

import os
from pathlib import Path

from ..engines.sql.sealing import KEY_ID
from ..engines.sqlite.locks import readers
from ..engines.sqlite.store import SqliteStore
from ..errors import JobdbError, KeyProblem
from ..registry import Registry
from .findings import Report

_LARGE_WAL_BYTES = 64 << 20


def check_database(report: Report, registry: Registry, *, full: bool) -> None:
    """The connection's settings, the file's soundness and the master key."""
    store = registry.engine.store
    if isinstance(store, SqliteStore):
        _check_settings(report, store)
        if not _check_soundness(report, store, full=full):
            return
        _check_wal(report, store)
    else:
        report.good("server", store.describe())
    _check_override(report, registry)
    _check_key(report, registry)


def _check_settings(report: Report, store: SqliteStore) -> None:
    actual = store.settings()
    shared = "; shared by several hosts" if store.journal == "delete" else ""
    how = "group commit: synced after the lock" if actual["group_commit"] else f"synchronous={actual['synchronous']}"
    report.good("journal", f"{actual['journal_mode']}, durability {store.durability}, {how}{shared}")


def _check_soundness(report: Report, store: SqliteStore, *, full: bool) -> bool:
    try:
        problems = store.integrity(full=full)
    except JobdbError as error:
        problems = [str(error)]
    if problems:
        restore = f"stop the writers; jobdb --db {store.path} restore BACKUP"
        report.fail("integrity", f"damaged: {problems[0]} ({len(problems)} found)", restore)
        return False
    report.good("integrity", "every page and reference is sound" if full else "quick check passed; --full reads all")
    return True


def _check_wal(report: Report, store: SqliteStore) -> None:
    if store.journal != "wal":
        return
    size = _size(Path(f"{store.path}-wal"))
    total, copied = store.checkpoint()
    if size < _LARGE_WAL_BYTES or copied >= total:
        report.good(
            "wal", f"{size >> 10} KiB, all of it copied into the database" if copied >= total else f"{size >> 10} KiB"
        )
        return
    who = ", ".join(readers(store.path)) or "a reader"
    report.warn(
        "wal",
        f"{size >> 20} MiB and {total - copied} pages that cannot be copied: {who} holds an old read transaction",
        f"end it: {who}",
    )


def _check_override(report: Report, registry: Registry) -> None:
    reason = registry.engine.setting("unsafe_override")
    if reason:
        report.warn(
            "override",
            f"this database was opened on an unsafe file system by override ({reason}); commits may have been lost",
            "move it to a local disk",
        )


def _check_key(report: Report, registry: Registry) -> None:
    known = registry.engine.setting(KEY_ID)
    if known is None:
        report.good("master key", "no secret is sealed yet; the key is made with the first")
        return
    try:
        found = registry.engine.vault.key_id
        if found == known:
            _open_one(registry)
    except KeyProblem as error:
        report.fail("master key", str(error), "set JOBDB_KEY_FILE to the key that sealed this database's secrets")
        return
    if found != known:
        report.fail(
            "master key",
            f"the database's secrets are under key {known}, and the key found here is {found}",
            "set JOBDB_KEY_FILE to the key that sealed this database's secrets",
        )
    else:
        report.good("master key", f"{found} from {registry.engine.vault.master.source}; a token was opened with it")


def _open_one(registry: Registry) -> None:
    """Opens one token, to see that the key works and not only that its name fits."""
    for job in registry.jobs(limit=20):
        if job.auth == "required":
            registry.tokens.present(job.job_id)
            return


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
