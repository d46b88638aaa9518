"""Reads what a command is given: text from files and stdin, JSON, time limits, output formats; bounded and checked.

Called by the commands; raises ``InvalidInput`` that names the option or file and the fault.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from jobdb.errors import InvalidInput

STDIN = "-"
_MAX_DIGITS = 400
_MAX_VALUES = 50_000
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def read_bytes(source: str, *, label: str, max_size: int) -> bytes:
    """Return the content of a file, or of stdin for ``-``.

    Args:
        source: the file name or ``-``.
        label: what the file holds, for messages.
        max_size: the most bytes that it may have.

    Raises:
        InvalidInput: it cannot be read, or is longer.
    """
    try:
        if source == STDIN:
            content = sys.stdin.buffer.read(max_size + 1)
        else:
            with open(source, "rb") as file:
                content = file.read(max_size + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InvalidInput(f"cannot read the {label} from {source!r}: {reason}") from error
    if len(content) > max_size:
        raise InvalidInput(f"the {label} in {source!r} is longer than {max_size} bytes; shorten it")
    return content


def read_text(source: str, *, label: str, max_chars: int) -> str:
    """Return the UTF-8 text of a file, or of stdin for ``-``; raise as :func:`read_bytes` does."""
    content = read_bytes(source, label=label, max_size=4 * max_chars)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"the {label} in {source!r} is not UTF-8 (byte {error.start}); convert it, for example with iconv -t UTF-8"
        ) from None


def parse_json_object(text: str | None, *, option: str, max_size: int = 1_048_576) -> dict[str, Any]:
    """Return an object given as JSON text or as ``@FILE`` (``@-``: stdin); an empty one for None.

    Raises:
        InvalidInput: it is not a JSON object, or cannot be read.
    """
    if text is None:
        return {}
    if text.startswith("@"):
        text = read_text(text[1:], label=f"JSON for {option}", max_chars=max_size)
    import json

    from jobdb.core.protocol.limits import has_more_values

    if has_more_values(text, _MAX_VALUES):
        raise InvalidInput(f"{option} holds more than {_MAX_VALUES} values; put them into a file and pass its name")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_reject_duplicate_keys,
            parse_constant=_reject_constant,
            parse_int=_bounded_integer if _has_long_number(text) else None,
        )
    except RecursionError:
        raise InvalidInput(f"{option} is nested too deeply; flatten it") from None
    except ValueError as error:
        raise InvalidInput(f"{option} is not valid JSON: {error}; pass an object such as '{{\"pct\": 10}}'") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{option} must be a JSON object such as '{{\"pct\": 10}}', not {_json_type_name(value)}")
    return value


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name!r:.80} occurs twice")
            seen.add(name)
    return members


def _has_long_number(text: str) -> bool:
    """Tell whether a number may be too long; where none is, Python's own conversion is much faster than ours."""
    return b"0" * (_MAX_DIGITS + 1) in text.encode("utf-8", "surrogatepass").translate(_DIGITS_AS_ZEROS)


def _bounded_integer(literal: str) -> int:
    """Convert as ``int`` does, up to a length: its time is quadratic, and no double has more digits."""
    if len(literal) > _MAX_DIGITS:
        raise ValueError(f"an integer has {len(literal)} digits; the maximum is {_MAX_DIGITS}")
    return int(literal)


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _json_type_name(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    return "a string" if isinstance(value, str) else "a single value"


_MAX_DURATION_CHARS = 20  # of a number of seconds, or of weeks


def parse_duration(text: str, *, option: str) -> float:
    """Return a duration such as ``30d``, ``12h``, ``90m``, ``45s``, ``2w`` or ``0`` in seconds.

    Raises:
        InvalidInput: the text is not a duration.
    """
    from jobdb.system.durations import SECONDS_PER_UNIT

    number, unit = (text[:-1], text[-1:]) if text[-1:] in SECONDS_PER_UNIT else (text, "")
    valid = len(number) <= _MAX_DURATION_CHARS and number.isascii() and number.replace(".", "", 1).isdigit()
    if valid and (unit or float(number) == 0):
        return float(number) * SECONDS_PER_UNIT.get(unit, 1)
    raise InvalidInput(f"{option} is {text!r:.40}; give a number and a unit, such as 45s, 90m, 12h, 30d or 2w")


def check_time_limit(seconds: float | None, *, option: str) -> float | None:
    """Return a time limit as it was given; None when there is none.

    Raises:
        InvalidInput: it is negative or not a number.
    """
    if seconds is not None and not seconds >= 0:
        raise InvalidInput(f"{option} is {seconds}; the minimum is 0 seconds")
    return seconds


def resolve_format(output_format: str | None, *, as_json: bool, formats: tuple[str, ...]) -> str:
    """Return the output format that ``--format`` and ``--json`` select; the first of ``formats`` by default.

    Raises:
        InvalidInput: there is no such format.
    """
    selected = "json" if as_json else output_format or formats[0]
    if selected not in formats:
        raise InvalidInput(f"{selected!r:.40} is not a format; the formats are {', '.join(formats)}")
    return selected
