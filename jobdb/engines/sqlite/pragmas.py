"""The settings of every runtime connection: a short list, each read back after it is set.

Called by the store when it opens a connection, and by the doctor for the check of SQLite's version. Executes pragmas on
its caller's connection, nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import apsw

from ...errors import Unusable

WAL_RESET_FIXED_IN = 3_051_003
"""SQLite 3.7.0 to 3.51.2 can lose a WAL reset that races with a checkpoint. https://sqlite.org/wal.html"""


class Setting(NamedTuple):
    """One pragma, the value it must have, and why."""

    pragma: str
    value: int | str
    why: str


def settings_for(journal: str, *, group_commit: bool, durability: str) -> list[Setting]:
    """Return the settings for a journal mode.

    Args:
        journal: "wal" or "delete".
        group_commit: this package syncs the WAL itself, after the commit.
        durability: "full" or "normal".
    """
    synchronous = 1 if group_commit or durability == "normal" else 2
    if journal == "delete":
        synchronous = 3
    settings = [
        Setting("synchronous", synchronous, "NORMAL where we sync the WAL ourselves; EXTRA on rollback journals"),
        Setting("foreign_keys", 1, "rows of a pruned job go with it"),
        Setting("trusted_schema", 0, "a schema planted in the file runs no functions"),
        Setting("cell_size_check", 1, "damage is found when a page is read"),
        Setting("mmap_size", 0, "an I/O error stays an error instead of a signal"),
        Setting("temp_store", 2, "no temporary files beside the database"),
        Setting("cache_size", -16384, "16 MiB"),
    ]
    if journal == "wal":
        settings.append(Setting("wal_autocheckpoint", 0, "checkpoints run outside of the write lock"))
        settings.append(Setting("journal_size_limit", 64 << 20, "a WAL that once grew is truncated when it restarts"))
    return settings


def apply_settings(connection: apsw.Connection, settings: list[Setting]) -> None:
    """Apply settings, and read each back.

    Raises:
        Unusable: SQLite kept another value.
    """
    # Otherwise SQLite plans a statement again for each value of a parameter, which takes longer than running it.
    # https://sqlite.org/queryplanner-ng.html#qpsg
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    for setting in settings:
        connection.pragma(setting.pragma, setting.value)
        actual = connection.pragma(setting.pragma)
        if str(actual).lower() != str(setting.value).lower():
            raise Unusable(
                f"PRAGMA {setting.pragma} is {actual} and must be {setting.value} ({setting.why}); "
                "this SQLite library cannot be used"
            )


def refuse_wal_reset_bug(version: int | None = None) -> None:
    """Refuse a SQLite library that has the WAL-reset bug.

    Args:
        version: the library's version number; None: that of the loaded library.

    Raises:
        Unusable: it has the bug.
    """
    if version is None:
        major, minor, patch = (int(part) for part in apsw.sqlite_lib_version().split(".")[:3])
        version = major * 1_000_000 + minor * 1_000 + patch
    if version < WAL_RESET_FIXED_IN:
        raise Unusable(
            f"apsw's SQLite {apsw.sqlite_lib_version()} has the WAL-reset bug of 3.7.0 to 3.51.2; "
            "install a newer one: pip install --upgrade apsw"
        )
