"""A strict JSON decoder for records and log lines, which returns an object or the damage and never raises.

Called by the parsers of records and log lines. Pure. Python's own decoder accepts duplicate keys, NaN, UTF-16 and
nesting of any depth; here each is a kind of damage.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .damage import Damaged, DamageKind, quoted

Json = Any

MAX_DEPTH = 64
"""The maximum nesting of lists and objects: far beyond any record, far below every decoder's limit."""

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_CUT_TOKEN = re.compile(r"t|tr|tru|f|fa|fal|fals|n|nu|nul|-|[.]|[eE][+-]?|\\\\u[0-9a-fA-F]{0,3}|u[0-9a-fA-F]{0,3}")


class _DuplicateKey(Exception):
    """Raised in the decoder with a duplicate key."""


class _NotANumber(Exception):
    """Raised in the decoder with NaN or Infinity."""


class _InfiniteNumber(Exception):
    """Raised for a number that is valid JSON and would be infinite in a double."""


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return made


def _refuse_constant(name: str) -> Json:
    raise _NotANumber(name)


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise _InfiniteNumber
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def parse_object(raw: bytes) -> dict[str, Json] | Damaged:
    """Parse one JSON object in UTF-8.

    Returns:
        The object, or the damage. Never raises.
    """
    text = _text(raw)
    if isinstance(text, Damaged):
        return text
    try:
        value = _decoded(text)
    except json.JSONDecodeError as error:
        return _syntax_damage(text, error)
    except _DuplicateKey as error:
        return Damaged(DamageKind.DUPLICATE_KEY, f"the key {quoted(str(error))} occurs twice")
    except _NotANumber as error:
        return Damaged(DamageKind.NOT_A_NUMBER, f"it contains {error}, which is not a JSON number")
    except _InfiniteNumber:
        return Damaged(DamageKind.HUGE_NUMBER, "it contains a number beyond the range of a double")
    except RecursionError:
        return _too_deep()
    except ValueError:
        return Damaged(DamageKind.HUGE_NUMBER, "it contains a number with thousands of digits")
    if type(value) is not dict:
        return Damaged(DamageKind.NOT_AN_OBJECT, "it is JSON, but not an object")
    return _check_rare_damage(raw, value) or value


def json_equal(one: bytes, other: bytes) -> bool:
    """Return whether two texts are equal JSON objects."""
    if one == other:
        return not isinstance(parse_object(one), Damaged)
    first, second = parse_object(one), parse_object(other)
    if isinstance(first, Damaged) or isinstance(second, Damaged):
        return False
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _decoded(text: str) -> Json:
    """Decode as ``JSONDecoder.decode`` does, but without its search for white space, which is rarely there."""
    if text[0] == "{":
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    return _DECODER.decode(text)


def _text(raw: bytes) -> str | Damaged:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            return Damaged(DamageKind.UTF16, "it is UTF-16, not UTF-8")
        return Damaged(DamageKind.NOT_UTF8, f"byte {error.start} is not UTF-8")
    if not raw:
        return Damaged(DamageKind.EMPTY, "it is empty")
    if text[0] == "\ufeff":
        return Damaged(DamageKind.BYTE_ORDER_MARK, "it begins with a byte order mark, which JSON does not allow")
    if "\0" in text:
        return _zero_bytes_damage(raw)
    return text


def _zero_bytes_damage(raw: bytes) -> Damaged:
    zeros = raw.count(0)
    if zeros == len(raw):
        return Damaged(
            DamageKind.ZEROED, f"all of its {len(raw)} bytes are zero, as a crash of the machine leaves them"
        )
    if zeros * 3 >= len(raw) and (raw[:1] == b"\0" or raw[1:2] == b"\0"):
        return Damaged(DamageKind.UTF16, "it is UTF-16 without a byte order mark, not UTF-8")
    return Damaged(
        DamageKind.ZEROED, f"{zeros} of its {len(raw)} bytes are zero, as a crash of the machine leaves them"
    )


def _syntax_damage(text: str, error: json.JSONDecodeError) -> Damaged:
    if not text.strip(" \t\r\n"):
        return Damaged(DamageKind.EMPTY, "it contains only white space")
    rest = text[error.pos :]
    if not rest.strip(" \t\r\n") or error.msg.startswith("Unterminated string") or _CUT_TOKEN.fullmatch(rest):
        return Damaged(DamageKind.CUT_SHORT, f"it is cut short after {len(text):,} characters")
    return Damaged(DamageKind.NOT_JSON, f"it is not valid JSON from line {error.lineno}, column {error.colno} on")


def _check_rare_damage(raw: bytes, value: dict[str, Json]) -> Damaged | None:
    """Return the rarer kinds of damage; each check follows a cheap test of the bytes, which most records pass."""
    if b"\\u" in raw and _SURROGATE_ESCAPE.search(raw) and not _encodes(value):
        return Damaged(DamageKind.LONE_SURROGATE, "it contains half of a surrogate pair, which is not text")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth_over(value, MAX_DEPTH):
        return _too_deep()
    return None


def _encodes(value: Json) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    except RecursionError:
        return True
    return True


def _depth_over(value: Json, limit: int) -> bool:
    level: list[Json] = [value]
    for _ in range(limit + 1):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in (dict, list)
        ]
        if not level:
            return False
    return True


def _too_deep() -> Damaged:
    return Damaged(DamageKind.TOO_DEEP, f"it is nested deeper than {MAX_DEPTH} levels")
