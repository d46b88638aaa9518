"""Edits of JSON as text: what is not edited keeps its order, indentation and line ends.

Called by ``configuration`` for the files of Claude Code. Pure. Python's own ``json`` would rewrite the whole file in
its own layout. Positions are those of characters.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput

_DECODER = json.JSONDecoder()
_space = re.compile(r"[ \t\n\r]*")
_first_indent = re.compile(r"\n([ \t]+)\S")


@dataclass(frozen=True, slots=True)
class Item:
    """A member of an object or an element of an array, and where it is.

    Attributes:
        name: the member's name; the number of an element.
        start: where it begins: at the name of a member.
        value: where its value begins.
        end: where its value ends.
    """

    name: str | int
    start: int
    value: int
    end: int


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        InvalidInput: it is not one, or has the same name twice.
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"it is not JSON: {problem!s:.200}") from None
    if not isinstance(found, dict):
        raise InvalidInput("it is not a JSON object")
    return found


def items(text: str, start: int) -> tuple[list[Item], int]:
    """Return what an object or array contains, and the position of its closing bracket.

    Args:
        text: valid JSON.
        start: the position of the opening bracket.
    """
    found: list[Item] = []
    close = "}" if text[start] == "{" else "]"
    place = _skip(text, start + 1)
    while text[place] != close:
        begin, name = place, len(found)
        if close == "}":
            named, place = _DECODER.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)  # the colon
        _, end = _DECODER.raw_decode(text, place)
        found.append(Item(named if close == "}" else name, begin, place, end))
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return found, place


def find(text: str, *names: str) -> int | None:
    """Return the position of the value that names lead to from the root; None if there is none."""
    place = _skip(text, 0)
    for name in names:
        inside = [item for item in items(text, place)[0] if item.name == name] if text[place] == "{" else []
        if not inside:
            return None
        place = inside[0].value
    return place


def insert(text: str, start: int, value: Any, *, name: str | None = None) -> str:
    """Return the text with a value added at the end of an object or array, in the layout of what is there.

    Args:
        text: valid JSON.
        start: the position of the container's opening bracket.
        value: the value.
        name: the name of the new member; None for an element.
    """
    line_end = "\r\n" if "\r\n" in text else "\n"
    first = _first_indent.search(text)
    unit = first[1] if first else "  "
    prefix = "" if name is None else f"{json.dumps(name, ensure_ascii=False)}: "
    present, close = items(text, start)
    if present and "\n" not in text[start : present[0].start]:
        return f"{text[: present[-1].end]}, {prefix}{json.dumps(value, ensure_ascii=False)}{text[present[-1].end :]}"
    line = text.rfind("\n", 0, start) + 1
    outer = text[line : line + len(text[line:start]) - len(text[line:start].lstrip(" \t"))]
    inner = text[text.rfind("\n", 0, present[0].start) + 1 : present[0].start] if present else outer + unit
    lines = json.dumps(value, ensure_ascii=False, indent=unit).split("\n")
    rendered = prefix + (line_end + inner).join(lines)
    if present:
        return f"{text[: present[-1].end]},{line_end}{inner}{rendered}{text[present[-1].end :]}"
    return f"{text[: start + 1]}{line_end}{inner}{rendered}{line_end}{outer}{text[close:]}"


def remove(text: str, start: int, name: str | int) -> str:
    """Return the text without a member or element; a container that becomes empty is left as ``{}`` or ``[]``."""
    present, close = items(text, start)
    number = next(number for number, item in enumerate(present) if item.name == name)
    if len(present) == 1:
        return text[: start + 1] + text[close:]
    if number + 1 < len(present):
        return text[: present[number].start] + text[present[number + 1].start :]
    return text[: present[number - 1].end] + text[present[number].end :]


def _skip(text: str, place: int) -> int:
    found = _space.match(text, place)
    assert found is not None
    return found.end()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("an object has the same name twice")
    return found
