"""The folders of an old registry: their location and their entries.

Called by the importer, the exporter and the drop-in module. Reads folders one entry at a time (`os.scandir`), so that
memory does not grow with the registry. Links are followed up to the given folder but not below it: the users who may
write to the registry are not always those who import it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import methodcaller
from pathlib import Path

from ...errors import InvalidInput, Unusable
from ..format.entry_kind import EntryKind

RECORD_SUFFIX = ".json"
LOG_SUFFIX = ".events.log"
LOCK_NAME = ".lock"
AUDIT_FOLDER = "delegate_job_logs"
AUDIT_LOG = "events.ndjson"
AUDIT_META = "meta.json"
AUDIT_STATUS = "status.json"
WORKSPACE_FOLDERS = (".mam", ".hermes")

MAX_LOG_BYTES = 256 << 20
"""The maximum size of an event log; a larger one is not read but reported."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one registry.

    Attributes:
        jobs: the folder of records, event logs and the lock.
        audit: the folder of audit logs; it need not exist.
    """

    jobs: Path
    audit: Path


def find_registry(directory: Path) -> Layout:
    """Return the registry in a workspace (``.mam/jobs``, ``.hermes/jobs``), in ``.mam`` itself, or the folder itself.

    Raises:
        InvalidInput: there is none, or there are two and the choice is ambiguous.
        Unusable: the folder cannot be read.
    """
    try:
        if not directory.is_dir():
            raise InvalidInput(f"{directory} is not a folder", advice="give the workspace or its .mam/jobs")
        found = [folder for name in WORKSPACE_FOLDERS if (folder := directory / name / "jobs").is_dir()]
        if len(found) > 1:
            found = [folder for folder in found if _looks_like_records(folder)] or found[:1]
        if len(found) > 1:
            names = " and ".join(str(folder) for folder in found)
            raise InvalidInput(f"{directory} contains more than one registry: {names}", advice="give one of them")
        if found:
            return _layout(found[0], named=directory)
        if directory.name in WORKSPACE_FOLDERS and (directory / "jobs").is_dir():
            return _layout(directory / "jobs", named=directory)
        if directory.name == "jobs" or _looks_like_records(directory):
            return _layout(directory, named=directory)
    except PermissionError as error:
        raise _unreadable(directory, error) from error
    raise InvalidInput(
        f"{directory} contains no registry: neither .mam/jobs nor .hermes/jobs nor records of its own (*.json)"
    )


def find_export_target(directory: Path) -> Layout:
    """Return the folders that an export writes to. Nothing is created here.

    These are the folders of an existing registry, or else the folder itself if it is named ``jobs``, or else
    ``.mam/jobs`` in it.

    Raises:
        InvalidInput: the folder contains two registries, or the path is not a folder.
    """
    if directory.is_dir():
        try:
            return find_registry(directory)
        except InvalidInput:
            folders = [directory / name / "jobs" for name in WORKSPACE_FOLDERS]
            if all(folder.is_dir() for folder in folders):
                raise
            for folder in folders:
                _layout(folder, named=directory)
    elif os.path.lexists(directory):
        raise InvalidInput(f"{directory} is not a folder", advice="give a folder to export to")
    return _layout(
        directory if directory.name == "jobs" else directory / WORKSPACE_FOLDERS[0] / "jobs", named=directory
    )


def list_jobs_folder(layout: Layout) -> Iterator[str]:
    """List the names in the folder of records except the lock, in the file system's order.

    Raises:
        Unusable: the folder cannot be read.
    """
    try:
        with os.scandir(layout.jobs) as entries:
            for entry in entries:
                if entry.name != LOCK_NAME:
                    yield entry.name
    except OSError as error:
        raise _unreadable(layout.jobs, error) from error


def list_audit_folder(layout: Layout) -> Iterator[str]:
    """List the audit log's folders, whose names are ids; yield nothing if there is no audit log or it is a link.

    Raises:
        Unusable: the folder cannot be read.
    """
    if layout.audit.is_symlink():
        return
    try:
        with os.scandir(layout.audit) as entries:
            for entry in entries:
                yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unreadable(layout.audit, error) from error


def count_records(layout: Layout, *, limit: int | None = None) -> int:
    """Count the entries that are named like records, up to the limit, without reading files."""
    return sum(1 for _ in islice(filter(_is_record, list_jobs_folder(layout)), limit))


_is_record = methodcaller("endswith", RECORD_SUFFIX)


def classify(name: str) -> EntryKind:
    """Return the kind of an entry of the folder of records, by its name."""
    if name.endswith(RECORD_SUFFIX):
        return EntryKind.RECORD
    if name.endswith(LOG_SUFFIX):
        return EntryKind.EVENT_LOG
    if name.endswith((".tmp", "~", ".swp")) or ".tmp." in name:
        return EntryKind.LEFTOVER
    return EntryKind.OTHER


def printable_name(name: str) -> str:
    """Return a file name as printable text, with control characters and invalid UTF-8 escaped."""
    if name.isprintable():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


def _layout(jobs: Path, *, named: Path) -> Layout:
    """Return the folders of a registry; only the folder that the caller named may be a link.

    Raises:
        InvalidInput: the folder of records, or its parent, is a link.
    """
    for folder in (jobs, jobs.parent):
        if folder == named or named not in folder.parents:
            break
        if folder.is_symlink():
            raise InvalidInput(
                f"{folder} is a link, and only the folder that is given may be one",
                advice="give the folder that it points to",
            )
    return Layout(jobs, jobs.parent / AUDIT_FOLDER)


def _looks_like_records(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name == LOCK_NAME or entry.name.endswith(RECORD_SUFFIX) for entry in entries)


def _unreadable(folder: Path, error: OSError) -> Unusable:
    return Unusable(f"the folder {folder} cannot be read: {error.strerror}; nothing was changed")
