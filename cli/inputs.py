"""Reading what a person gives: text from files and stdin, JSON, durations. All of it bounded, all of it checked.

Called by the commands; raises ``InvalidInput`` with the place and the fault.
"""

from __future__ import annotations

import sys
from typing import Any

from jobdb.errors import InvalidInput

STDIN = "-"
_MAX_DIGITS = 400
_MAX_VALUES = 50_000
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def read_bytes(source: str, *, label: str, max_size: int) -> bytes:
    """The content of a file, or of stdin for ``-``.

    Args:
        source: the file's name or ``-``.
        label: what it holds, for messages.
        max_size: how many bytes it may have.

    Raises:
        InvalidInput: it cannot be read, or is longer.
    """
    try:
        if source == STDIN:
            content = sys.stdin.buffer.read(max_size + 1)
        else:
            with open(source, "rb") as file:
                content = file.read(max_size + 1)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InvalidInput(f"cannot read the {label} from {source!r}: {reason}") from problem
    if len(content) > max_size:
        raise InvalidInput(f"the {label} in {source!r} is longer than {max_size} bytes; give less")
    return content


def read_text(source: str, *, label: str, max_chars: int) -> str:
    """Text in UTF-8 from a file, or from stdin for ``-``; raises as :func:`read_bytes`."""
    content = read_bytes(source, label=label, max_size=4 * max_chars)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise InvalidInput(
            f"the {label} in {source!r} is not UTF-8 (byte {problem.start}); convert it, as with iconv -t UTF-8"
        ) from None


def json_object(text: str | None, *, option: str, max_size: int = 1_048_576) -> dict[str, Any]:
    """An object given as JSON text, or as ``@FILE`` (``@-``: stdin); empty when None.

    Raises:
        InvalidInput: it is no JSON, no object, or cannot be read.
    """
    if text is None:
        return {}
    if text.startswith("@"):
        text = read_text(text[1:], label=f"JSON for {option}", max_chars=max_size)
    import json

    from jobdb.core.protocol.limits import has_more_values

    if has_more_values(text, _MAX_VALUES):
        raise InvalidInput(f"{option} holds more than {_MAX_VALUES} values; put them into a file, and name that here")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_reject_duplicate_keys,
            parse_constant=_reject_constant,
            parse_int=_bounded_integer if _has_long_number(text) else None,
        )
    except RecursionError:
        raise InvalidInput(f"{option} is nested too deeply; give flatter JSON") from None
    except ValueError as problem:
        raise InvalidInput(f"{option} is no JSON: {problem}; give an object such as '{{\"pct\": 10}}'") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{option} must be a JSON object such as '{{\"pct\": 10}}', not {_json_type_name(value)}")
    return value


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name!r:.80} is there twice")
            seen.add(name)
    return found


def _has_long_number(text: str) -> bool:
    """Tell whether a number may be too long: where none is, Python's own conversion is much faster than ours."""
    return b"0" * (_MAX_DIGITS + 1) in text.encode("utf-8", "surrogatepass").translate(_DIGITS_AS_ZEROS)


def _bounded_integer(literal: str) -> int:
    """As ``int``, which takes quadratic time. No double has more digits."""
    if len(literal) > _MAX_DIGITS:
        raise ValueError(f"a whole number has {len(literal)} digits; it may have {_MAX_DIGITS}")
    return int(literal)


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _json_type_name(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else "a single value"


_MAX_DURATION_CHARS = 20  # of a number of seconds, or of weeks
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def duration(text: str, *, option: str) -> float:
    """A duration such as ``30d``, ``12h``, ``90m``, ``45s``, ``2w`` or ``0``, in seconds.

    Raises:
        InvalidInput: it is none.
    """
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "")
    plain = len(number) <= _MAX_DURATION_CHARS and number.isascii() and number.replace(".", "", 1).isdigit()
    if plain and (unit or float(number) == 0):
        return float(number) * _UNITS.get(unit, 1)
    raise InvalidInput(f"{option} is {text!r:.40}; write a number and a unit, such as 45s, 90m, 12h, 30d or 2w")
