"""The exchange of names: a finished file takes a database's name, and the old file is kept under another name.

Called by ``locked_replace``, under the gate and SQLite's exclusive lock; calls the file system. If the file system can
exchange two names, this is one step. Otherwise the old file gets its second name first, and the new one is then renamed
over the first name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from ..engines.sqlite.stale_journals import free_names, nonempty_journals
from ..filesystem.atomic_files import UNSUPPORTED, exchange, rename_noreplace
from ..filesystem.file_names import take_first_free
from ..filesystem.folder_sync import sync_folder
from ..filesystem.permissions import COMPANION_SUFFIXES, JOURNAL_SUFFIXES
from ..filesystem.scratch_file import ScratchFile
from ..filesystem.unsafe_files import refuse_unsafe_file
from ..system.identifiers import file_id

_KEPT_WORD = "replaced"


class KeptFiles(NamedTuple):
    """The new names of the old file and of its journals."""

    database: Path
    journals: tuple[Path, ...] = ()


def replace_database(scratch: ScratchFile, target: Path) -> KeptFiles:
    """Replace the file at a name; keep the old one with its journals under other names.

    The name always refers to the old file or the new one. Only a damaged database still has journals here; they get
    their new names before they lose the old ones.

    Raises:
        OSError: nothing was replaced.
    """
    kept = _kept_by_interrupted(target)
    journals = [suffix for suffix in JOURNAL_SUFFIXES if os.path.lexists(f"{target}{suffix}")]
    holding = bool(nonempty_journals(target))
    if not holding:
        _remove_journals(target, journals)
        journals = []
    if kept is None and not holding:
        kept = _keep_by_exchange(scratch, target)
        if kept is not None:
            sync_folder(target.parent)
            return KeptFiles(kept)
    try:
        kept = kept or _keep_by_link(target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return _keep_by_rename(scratch, target, journals)
    moved = []
    for suffix in journals:
        Path(f"{kept}{suffix}").unlink(missing_ok=True)
        os.link(f"{target}{suffix}", f"{kept}{suffix}", follow_symlinks=False)
        moved.append(Path(f"{kept}{suffix}"))
    sync_folder(target.parent)
    _remove_journals(target, journals)
    sync_folder(target.parent)
    scratch.replace(target)
    sync_folder(target.parent)
    return KeptFiles(kept, _without_shm(moved))


def count_other_links(target: Path, found: os.stat_result) -> int:
    """Return the number of a file's names, except this one and those given by an interrupted restore."""
    return found.st_nlink - 1 - len(_own_names(target, found))


def refuse_unsafe_journals(target: Path) -> None:
    """Refuse a database with journals that must not be written to, which opening it would do.

    A journal may have a second name given by an interrupted restore.

    Raises:
        StorageFailed: a journal is a link, not a regular file, has another name, or belongs to another user.
    """
    kept = _kept_by_interrupted(target)
    for suffix in COMPANION_SUFFIXES:
        if kept is None or not _is_same(f"{kept}{suffix}", f"{target}{suffix}"):
            refuse_unsafe_file(f"{target}{suffix}", database=target)


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _own_names(target: Path, found: os.stat_result) -> list[Path]:
    ours = re.compile(re.escape(f"{target.name}.{_KEPT_WORD}-") + r"\d{8}T\d{6}Z(?:-\d+)?")
    names = []
    for name in os.listdir(target.parent):
        if ours.fullmatch(name):
            path = target.with_name(name)
            other = os.lstat(path)
            if file_id(other) == file_id(found):
                names.append(path)
    return sorted(names)


def _kept_by_interrupted(target: Path) -> Path | None:
    """Return the name under which an interrupted restore was about to keep the file."""
    found = os.lstat(target)
    names = _own_names(target, found) if found.st_nlink > 1 else []
    return names[0] if names else None


def _keep_by_exchange(scratch: ScratchFile, target: Path) -> Path | None:
    """Give the new file the name for keeping the old one, and exchange the two names.

    Returns:
        The old file's new name; None if the file system cannot exchange names.
    """
    before = scratch.path
    kept = take_first_free(free_names(target, _KEPT_WORD), scratch.publish_as)
    try:
        exchanged = exchange(kept, target)
    except OSError:
        scratch.rename_back(before)
        raise
    if exchanged:
        scratch.path = target
        return kept
    scratch.rename_back(before)
    return None


def _keep_by_link(target: Path) -> Path:
    return take_first_free(free_names(target, _KEPT_WORD), lambda kept: os.link(target, kept, follow_symlinks=False))


def _keep_by_rename(scratch: ScratchFile, target: Path, journals: list[str]) -> KeptFiles:
    """Rename the old file away and then the new one to its name, if the file system has neither exchange nor links.

    The name is briefly unused; the gate is held meanwhile.
    """
    kept = next(free_names(target, _KEPT_WORD))
    moved = []
    for suffix in journals:
        rename_noreplace(Path(f"{target}{suffix}"), Path(f"{kept}{suffix}"))
        moved.append(Path(f"{kept}{suffix}"))
    rename_noreplace(target, kept)
    scratch.replace(target)
    sync_folder(target.parent)
    return KeptFiles(kept, _without_shm(moved))


def _without_shm(moved: list[Path]) -> tuple[Path, ...]:
    return tuple(path for path in moved if not path.name.endswith("-shm"))


def _remove_journals(target: Path, journals: list[str]) -> None:
    for suffix in journals:
        Path(f"{target}{suffix}").unlink(missing_ok=True)
