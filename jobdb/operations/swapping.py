"""Letting a finished file take a database's name, while what had it is kept under another.

Called by restore, under the gate and SQLite's exclusive lock. Where the file system can exchange two names, that is one
step. Elsewhere the old file gets its second name first, and the new one is then renamed over the first.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..engines.sqlite.companions import free_name, journals_with_content
from ..filesystem.atomic_files import UNSUPPORTED, ScratchFile, exchange, first_free, rename_exclusively
from ..filesystem.permissions import COMPANIONS, JOURNALS, refuse_strange, sync_folder

_WORD = "replaced"


def put_in_place(scratch: ScratchFile, target: Path) -> tuple[Path, tuple[Path, ...]]:
    """Replace the file at a name, which is kept with its journals.

    At every moment the name stands for the old file or for the new one. Only what is damaged still has journals here;
    they get their new names before the old ones are taken from them.

    Returns:
        The old file's new name, and those of its journals.

    Raises:
        OSError: nothing was replaced.
    """
    kept = _interrupted(target)
    journals = [suffix for suffix in JOURNALS if os.path.lexists(f"{target}{suffix}")]
    holding = bool(journals_with_content(target))
    if not holding:
        _drop(target, journals)
        journals = []
    if kept is None and not holding:
        kept = _exchanged(scratch, target)
        if kept is not None:
            sync_folder(target.parent)
            return kept, ()
    try:
        kept = kept or _linked(target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return _renamed(scratch, target, journals)
    moved = []
    for suffix in journals:
        Path(f"{kept}{suffix}").unlink(missing_ok=True)
        os.link(f"{target}{suffix}", f"{kept}{suffix}", follow_symlinks=False)
        moved.append(Path(f"{kept}{suffix}"))
    sync_folder(target.parent)
    _drop(target, journals)
    sync_folder(target.parent)
    scratch.replace(target)
    sync_folder(target.parent)
    return kept, _worth_telling(moved)


def other_names(target: Path, found: os.stat_result) -> int:
    """Count a file's names other than this one and those that an interrupted restore has given it."""
    return found.st_nlink - 1 - len(_own_names(target, found))


def refuse_strange_journals(target: Path) -> None:
    """Refuse a database beside which something stands that must not be written to, as opening it does.

    A journal may have the second name that an interrupted restore has given it.

    Raises:
        StorageFailed: one of them is a link, not a regular file, has another name, or belongs to somebody else.
    """
    kept = _interrupted(target)
    for suffix in COMPANIONS:
        if kept is None or not _is_same(f"{kept}{suffix}", f"{target}{suffix}"):
            refuse_strange(f"{target}{suffix}", database=target)


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _own_names(target: Path, found: os.stat_result) -> list[Path]:
    ours = re.compile(re.escape(f"{target.name}.{_WORD}-") + r"\d{8}T\d{6}Z(?:-\d+)?")
    names = []
    for name in os.listdir(target.parent):
        if ours.fullmatch(name):
            path = target.with_name(name)
            other = os.lstat(path)
            if (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino):
                names.append(path)
    return sorted(names)


def _interrupted(target: Path) -> Path | None:
    """Return the name under which an interrupted restore was about to keep the file."""
    found = os.lstat(target)
    names = _own_names(target, found) if found.st_nlink > 1 else []
    return names[0] if names else None


def _exchanged(scratch: ScratchFile, target: Path) -> Path | None:
    """Give the new file the name to keep the old one under, and exchange the two; None where that cannot be done."""
    before = scratch.path
    kept = first_free(free_name(target, _WORD), scratch.name)
    try:
        exchanged = exchange(kept, target)
    except OSError:
        scratch.take_back(before)
        raise
    if exchanged:
        scratch.path = target
        return kept
    scratch.take_back(before)
    return None


def _linked(target: Path) -> Path:
    return first_free(free_name(target, _WORD), lambda kept: os.link(target, kept, follow_symlinks=False))


def _renamed(scratch: ScratchFile, target: Path, journals: list[str]) -> tuple[Path, tuple[Path, ...]]:
    """Where the file system has neither: the name stands for nothing for a moment, in which the gate is held."""
    kept = next(free_name(target, _WORD))
    moved = []
    for suffix in journals:
        rename_exclusively(Path(f"{target}{suffix}"), Path(f"{kept}{suffix}"))
        moved.append(Path(f"{kept}{suffix}"))
    rename_exclusively(target, kept)
    scratch.replace(target)
    sync_folder(target.parent)
    return kept, _worth_telling(moved)


def _worth_telling(moved: list[Path]) -> tuple[Path, ...]:
    return tuple(path for path in moved if not path.name.endswith("-shm"))


def _drop(target: Path, journals: list[str]) -> None:
    for suffix in journals:
        Path(f"{target}{suffix}").unlink(missing_ok=True)
