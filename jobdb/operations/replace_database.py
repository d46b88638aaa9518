"""Letting a finished file take a database's name, while what had it is kept under another.

Called by restore, under the gate and SQLite's exclusive lock. Where the file system can exchange two names, that is one
step. Elsewhere the old file gets its second name first, and the new one is then renamed over the first.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..engines.sqlite.stale_journals import free_names, nonempty_journals
from ..filesystem.atomic_files import UNSUPPORTED, exchange, rename_noreplace
from ..filesystem.file_names import take_first_free
from ..filesystem.folder_sync import sync_folder
from ..filesystem.permissions import COMPANION_SUFFIXES, JOURNAL_SUFFIXES
from ..filesystem.scratch_file import ScratchFile
from ..filesystem.unsafe_files import refuse_unsafe_file
from ..system.identifiers import file_id

_KEPT_WORD = "replaced"


def replace_database(scratch: ScratchFile, target: Path) -> tuple[Path, tuple[Path, ...]]:
    """Replace the file at a name, which is kept with its journals.

    At every moment the name stands for the old file or for the new one. Only what is damaged still has journals here;
    they get their new names before the old ones are taken from them.

    Returns:
        The old file's new name, and those of its journals.

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
            return kept, ()
    try:
        kept = kept or _linked(target)
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
    return kept, _without_shm(moved)


def count_other_links(target: Path, found: os.stat_result) -> int:
    """Count a file's names other than this one and those that an interrupted restore has given it."""
    return found.st_nlink - 1 - len(_own_names(target, found))


def refuse_strange_journals(target: Path) -> None:
    """Refuse a database beside which something stands that must not be written to, as opening it does.

    A journal may have the second name that an interrupted restore has given it.

    Raises:
        StorageFailed: one of them is a link, not a regular file, has another name, or belongs to somebody else.
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
    """Give the new file the name to keep the old one under, and exchange the two; None where that cannot be done."""
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


def _linked(target: Path) -> Path:
    return take_first_free(free_names(target, _KEPT_WORD), lambda kept: os.link(target, kept, follow_symlinks=False))


def _keep_by_rename(scratch: ScratchFile, target: Path, journals: list[str]) -> tuple[Path, tuple[Path, ...]]:
    """Where the file system has neither: the name stands for nothing for a moment, in which the gate is held."""
    kept = next(free_names(target, _KEPT_WORD))
    moved = []
    for suffix in journals:
        rename_noreplace(Path(f"{target}{suffix}"), Path(f"{kept}{suffix}"))
        moved.append(Path(f"{kept}{suffix}"))
    rename_noreplace(target, kept)
    scratch.replace(target)
    sync_folder(target.parent)
    return kept, _without_shm(moved)


def _without_shm(moved: list[Path]) -> tuple[Path, ...]:
    return tuple(path for path in moved if not path.name.endswith("-shm"))


def _remove_journals(target: Path, journals: list[str]) -> None:
    for suffix in journals:
        Path(f"{target}{suffix}").unlink(missing_ok=True)
