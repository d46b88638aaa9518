"""The report of a database's files that others may access: warnings on opening, findings of the doctor.

Called by the SQLite engine on opening, by the master key and by the doctor; uses ``stat`` only and changes no mode.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from .permissions import COMPANION_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_GROUP_AND_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_modes(db_path: str | os.PathLike[str], *, companions: Iterable[str] = COMPANION_SUFFIXES) -> list[str]:
    """Report which of a database's files, or its folder, others may access, each with the command that fixes it.

    A folder is reported if others may write to it without the sticky bit (they could replace the database), or if it is
    dedicated to the database and others may enter it: not the current folder, the home folder or a folder of another
    user, for which ``chmod 700`` would be bad advice.

    Args:
        db_path: the database file; it need not exist.
        companions: the suffixes of the files beside it.

    Returns:
        One sentence per finding; empty when all is private.
    """
    target = os.path.realpath(db_path)
    findings = []
    for suffix in ("", *companions):
        if os.path.islink(target + suffix):
            continue  # refused when the database is opened; chmod would change the file that it leads to
        warning = file_warning(target + suffix)
        if warning:
            findings.append(warning)
    warning = folder_warning(os.path.dirname(target))
    if warning:
        findings.append(warning)
    return findings


def file_warning(path: str | os.PathLike[str]) -> str | None:
    """Return a warning with the chmod that fixes it if group or others have any permission on a regular file."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode) or not info.st_mode & _GROUP_AND_OTHERS:
        return None
    return _mode_warning("the file", os.fspath(path), info.st_mode, "600")


def folder_warning(path: str | os.PathLike[str]) -> str | None:
    """Return such a warning for a folder, by the rule of `check_modes`."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    writable = bool(info.st_mode & _GROUP_AND_OTHERS_WRITE) and not info.st_mode & stat.S_ISVTX
    if not writable and (not info.st_mode & _GROUP_AND_OTHERS or not _is_dedicated_folder(os.fspath(path), info)):
        return None
    return _mode_warning(
        "the folder", os.fspath(path), info.st_mode, "go-w" if not _is_dedicated_folder(path, info) else "700"
    )


def _is_dedicated_folder(path: str | os.PathLike[str], info: os.stat_result) -> bool:
    if info.st_uid != os.geteuid() or info.st_mode & stat.S_ISVTX:
        return False
    target = os.path.realpath(path)
    return target not in (_current_folder(), os.path.realpath(os.path.expanduser("~")), "/")


def _current_folder() -> str | None:
    try:
        return os.path.realpath(os.getcwd())
    except OSError:
        return None  # it was removed


def _mode_warning(what: str, path: str, mode: int, wanted: str) -> str:
    import shlex  # imported here: mostly there is nothing to fix

    who = [name for name, bits in (("its group", stat.S_IRWXG), ("everybody", stat.S_IRWXO)) if mode & bits]
    return (
        f"{what} {path} has mode {stat.S_IMODE(mode):04o}, which lets {' and '.join(who)} in; "
        f"fix it with: chmod {wanted} {shlex.quote(path)}"
    )
