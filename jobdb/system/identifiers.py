"""The system's identifiers of a file, a boot and a machine.

Used by the SQLite engine, by the file helpers and for a registry's place. Only the files that hold an identifier are
opened.
"""

from __future__ import annotations

import os
import re

FileId = tuple[int, int]
"""A file's device and inode number."""

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MACHINE_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def file_id(status: os.stat_result) -> FileId:
    """Return the identifier of a file while it exists: its device and inode number."""
    return status.st_dev, status.st_ino


def boot_id() -> str:
    """Return an identifier of the current boot; empty if the kernel provides none.

    The worker of the file system probe reads the same file itself, since it is started without this package.
    """
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def machine_id() -> str:
    """Return the machine's id, 32 hex digits that survive a restart; empty if it has none.

    It is confidential: show and store a digest of it only. Source: machine-id(5).
    """
    for name in _MACHINE_ID_FILES:
        try:
            with open(name, "rb") as file:
                found = file.read(64).strip()
        except OSError:
            continue
        if re.fullmatch(rb"[0-9a-f]{32}", found):
            return found.decode("ascii")
    return ""
