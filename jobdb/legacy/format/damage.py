"""The kinds of damage in files of the old registry, and of trust warnings.

Used by every parser and reader of files, and by the report. Calls nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class DamageKind(StrEnum):
    """The reason why a file, or a part of it, was not imported. The values are stable names in the report."""

    EMPTY = "empty"
    ZEROED = "zeroed"
    CUT_SHORT = "cut_short"
    BYTE_ORDER_MARK = "byte_order_mark"
    UTF16 = "utf16"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    DUPLICATE_KEY = "duplicate_key"
    NOT_A_NUMBER = "not_a_number"
    HUGE_NUMBER = "huge_number"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    LONE_SURROGATE = "lone_surrogate"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIME = "bad_time"
    UNSAFE_ID = "unsafe_id"
    WRONG_ID = "wrong_id"
    OTHER_SCHEMA = "other_schema"
    UNKNOWN_STATUS = "unknown_status"
    BAD_STATE = "bad_state"
    BAD_TOPIC = "bad_topic"
    NOT_A_FILE = "not_a_file"
    LINK = "link"
    DANGLING_LINK = "dangling_link"
    UNREADABLE = "unreadable"
    NO_RECORD = "no_record"
    BAD_LINE = "bad_line"
    CUT_LINE = "cut_line"
    CONFLICTING_LINES = "conflicting_lines"
    SECRET_IN_CLEAR = "secret_in_clear"
    NOT_HELD = "not_held"


class TrustWarning(StrEnum):
    """The reason why events of an imported job are trusted less, or not at all. The values are stable names."""

    UNSIGNED = "unsigned"
    """It has no token: its events need no signature."""

    WEAK_TOKEN = "weak_token"
    """Its token has less than 128 bits."""

    NO_USABLE_TOKEN = "no_usable_token"
    """Its events must be signed and nobody has its key: no event is accepted until its token is rotated."""

    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Damaged:
    """The damage of a file, which is left in place.

    Attributes:
        kind: the kind of damage.
        reason: one sentence for people, without the file's content, except names and short quotes, and without secrets.
    """

    kind: DamageKind
    reason: str


class FileDamage(NamedTuple):
    """A damaged file that belongs to a job's record.

    Attributes:
        path: its path within the registry's folder; the audit log's begins with ``../``.
        damaged: its damage.
    """

    path: str
    damaged: Damaged


def quoted(text: str, *, most: int = 40) -> str:
    """Return a short, printable quote of text from a file."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return ascii(shown)
