"""The kinds of files in a registry.

Used by the readers of files and logs and by the database, where a kept line says to which log it belongs. Calls
nothing.
"""

from __future__ import annotations

from enum import StrEnum


class EntryKind(StrEnum):
    """The kind of a file, according to its name."""

    RECORD = "record"
    EVENT_LOG = "event_log"
    AUDIT_LOG = "audit_log"
    AUDIT_META = "audit_meta"
    AUDIT_STATUS = "audit_status"
    LEFTOVER = "leftover"
    OTHER = "other"

    __hash__ = str.__hash__  # the hash of enumerations is implemented in Python, and these are dictionary keys
