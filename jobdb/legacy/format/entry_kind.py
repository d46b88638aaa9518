"""The kinds of files that a registry is made of.

Used by the readers of files and logs and by the database, where a kept line says which log it is of. Nothing is called
from here.
"""

from __future__ import annotations

from enum import StrEnum


class EntryKind(StrEnum):
    """The kind of a file, as its name says it."""

    RECORD = "record"
    EVENT_LOG = "event_log"
    AUDIT_LOG = "audit_log"
    AUDIT_META = "audit_meta"
    AUDIT_STATUS = "audit_status"
    LEFTOVER = "leftover"
    OTHER = "other"

    __hash__ = str.__hash__  # that of enumerations is written in Python, and these are the keys of small dictionaries
