"""Checks on the arguments of the public verbs: each returns the value to store, or raises InvalidInput.

Called by the verbs of :mod:`jobdb.registry`, and by the subscriber, the tickets, the operations and the command line,
before they call an engine, which does not repeat the checks. Pure: reads no database, clock or file. The arguments of
``register`` are checked in :mod:`jobdb.core.registration`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidInput
from ..model import EventKind, JobStatus
from .protocol import JOB_ID_PATTERN, MAX_KID, MAX_SEQ

if TYPE_CHECKING:
    from ..model import AuthMode, Durability, StartPoint

MAX_TIMEOUT_SEC = 10 * 366 * 86_400
MAX_LEASE_SEC = 366 * 86_400
MAX_PAGE = 10_000
MAX_WINDOW = 1_000_000

_is_job_id = re.compile(JOB_ID_PATTERN).fullmatch
_KINDS = {kind.value: kind for kind in EventKind}


def shown(value: object, most: int = 60) -> str:
    """Return a value's truncated ``repr`` for a message, or its type if that fails, as it does for huge integers."""
    try:
        return f"{value!r:.{most}}"
    except Exception:  # a foreign __repr__ may raise anything, and the argument must still be reported
        return f"a value of type {type(value).__name__}"


def to_builtin(value: Any) -> Any:
    """Return text or a number as its built-in base type; anything else as it is.

    A driver may treat a subclass, such as an enumeration member, as something else, and a subclass may compare
    differently from the value that is stored.
    """
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and kind is not bool:
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else value


def text(name: str, value: Any, *, most: int, least: int = 1) -> str:
    """Return text of a bounded length that UTF-8 can encode and that contains no NUL."""
    if type(value) is not str and not isinstance(value, str):
        raise InvalidInput(f"{name} must be text, not {type(value).__name__}")
    plain_text: str = value if type(value) is str else str.__str__(value)  # a subclass, such as an enumeration member
    if not least <= len(plain_text) <= most:
        wanted = f"{least} to {most}" if least else f"at most {most}"
        raise InvalidInput(f"{name} must have {wanted} characters, not {len(plain_text)}")
    if "\0" in plain_text:
        raise InvalidInput(f"{name} contains a NUL character", advice="remove it")
    try:
        plain_text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{name} is not valid Unicode text: it contains a lone surrogate", advice="check its encoding"
        ) from None
    return plain_text


def optional_text(name: str, value: object, *, most: int) -> str | None:
    """Return text as :func:`text` does, or None."""
    return None if value is None else text(name, value, most=most)


def integer(name: str, value: Any, *, least: int, most: int) -> int:
    """Return an integer within bounds; refuse True and False."""
    if type(value) is not int:
        value = to_builtin(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInput(f"{name} must be a whole number, not {shown(value)}")
    if not least <= value <= most:
        raise InvalidInput(f"{name} must be {least} to {most}, not {shown(value)}")
    return value


def seconds_as_ms(name: str, value: Any, *, most: float = MAX_LEASE_SEC) -> int:
    """Return a duration above 0 seconds as whole milliseconds, at least 1."""
    duration: float = value if type(value) in (int, float) else _number(name, value, "a number of seconds")
    if not 0 < duration <= most:
        raise InvalidInput(f"{name} must be above 0 and at most {most:.0f} seconds, not {shown(value)}")
    return max(1, round(duration * 1000))


def seconds(name: str, value: Any, *, most: float = MAX_TIMEOUT_SEC) -> float:
    """Return a duration in seconds that may be 0, such as the limit of a wait."""
    duration: float = value if type(value) in (int, float) else _number(name, value, "a number of seconds")
    if not 0 <= duration <= most:
        raise InvalidInput(f"{name} must be 0 to {most:.0f} seconds, not {shown(value)}")
    return float(duration)


def _number(name: str, value: Any, what: str) -> float:
    value = to_builtin(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{name} must be {what}, not {shown(value)}")
    return value


def percentage(name: str, value: Any) -> float:
    """Return a share in per cent, 0 to 100, whole or not."""
    share: float = value if type(value) in (int, float) else _number(name, value, "a number")
    if not 0 <= share <= 100:
        raise InvalidInput(f"{name} must be 0 to 100, not {shown(value)}")
    return share


def limit_sec(name: str, value: object) -> float | None:
    """Return the limit of a wait in seconds; None if it is None or infinite."""
    if value is None or (isinstance(value, float) and value == math.inf):
        return None
    return seconds(name, value)


def items(name: str, values: object, *, of: str) -> Iterable[Any]:
    """Return several values; refuse text, bytes and mappings, whose items would be mistaken for the values."""
    if type(values) is list or type(values) is tuple:
        return values
    if isinstance(values, (str, bytes, bytearray)):
        raise InvalidInput(
            f"{name} must be a list of {of}, not a single {type(values).__name__}", advice="put it into a list"
        )
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise InvalidInput(f"{name} must be a list of {of}, not {type(values).__name__}")
    return values


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """Return a mapping as it is."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} must be an object (a mapping), not {type(value).__name__}")
    return value


def flag(name: str, value: object) -> bool:
    """Return True or False; refuse values that are merely truthy or falsy."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} must be True or False, not {shown(value)}")
    return value


def job_id(value: Any) -> str:
    """Return a job id."""
    if type(value) is not str:
        value = to_builtin(value)
    if not isinstance(value, str) or not _is_job_id(value):
        raise InvalidInput(
            f"invalid job id: {shown(value, 80)}",
            advice="use at most 128 of A-Z a-z 0-9 _ . : @ -, and start with a letter, a digit or _",
        )
    return value


def optional_job_id(value: Any) -> str | None:
    """Return a job id as :func:`job_id` does, or None."""
    return None if value is None else job_id(value)


def attempt(value: object) -> int:
    """Return the attempt number of a claim."""
    return integer("attempt", value, least=0, most=MAX_SEQ)


def kid(value: object) -> int:
    """Return the version number of a token."""
    return integer("kid", value, least=1, most=MAX_KID)


def page_limit(value: object, *, name: str = "limit") -> int:
    """Return the length of a page."""
    return integer(name, value, least=1, most=MAX_PAGE)


def event_kind(value: Any) -> EventKind:
    """Return the kind of an event, given as its name or as an :class:`EventKind`."""
    if isinstance(value, EventKind):
        return value
    value = to_builtin(value)
    kind = _KINDS.get(value) if isinstance(value, str) else None
    if kind is None:
        raise InvalidInput(f"invalid event: {shown(value)}", advice=f"use one of {', '.join(EventKind)}")
    return kind


def statuses(values: object) -> tuple[JobStatus, ...]:
    """Return statuses, given as one name or as several, without duplicates."""
    found = []
    for value in [values] if isinstance(values, str) else items("status", values, of="statuses"):
        try:
            found.append(JobStatus(to_builtin(value) if isinstance(value, str) else ""))
        except ValueError:
            raise InvalidInput(f"invalid status: {shown(value)}", advice=f"use one of {', '.join(JobStatus)}") from None
    return tuple(dict.fromkeys(found))


def start(value: Any) -> StartPoint:
    """Return the starting point of a new subscriber."""
    return cast("StartPoint", _one_of("start", value, ("beginning", "now")))


def durability(value: Any) -> Durability:
    """Return the durability of commits."""
    return cast("Durability", _one_of("durability", value, ("full", "normal")))


def auth_mode(value: Any) -> AuthMode:
    """Return the authentication mode of a job."""
    return cast("AuthMode", _one_of("auth", value, ("required", "never")))


def _one_of(name: str, value: Any, names: tuple[str, ...]) -> str:
    value = to_builtin(value)
    if not isinstance(value, str) or value not in names:
        raise InvalidInput(f"invalid {name}: {shown(value)}", advice=f"use {' or '.join(map(repr, names))}")
    return value
