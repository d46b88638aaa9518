"""The ``repr`` of records: one readable line of bounded length.

Called by the records' ``__repr__``, which imports it when it is first needed; calls only ``times``.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from enum import Enum
from reprlib import Repr
from typing import Any

from .times import format_time

_MAX_TEXT_CHARS = 60


def one_line(record: Any, *names: str) -> str:
    """Return ``Type(name=value, …)`` on one line, with long values truncated.

    Args:
        record: a dataclass instance.
        names: the fields to show; by default, those in the dataclass's own repr.
    """
    shown = names or [field.name for field in dataclasses.fields(record) if field.repr]
    return f"{type(record).__name__}({', '.join(f'{name}={_short(getattr(record, name))}' for name in shown)})"


def _short(value: object) -> str:
    if isinstance(value, datetime):
        return str(format_time(value))
    if isinstance(value, Enum):
        return repr(value.value)
    if dataclasses.is_dataclass(value):
        return repr(value)
    try:
        return _cut.repr(value)
    except ValueError:  # an integer with more digits than Python converts
        return f"<{type(value).__name__}>"


_cut = Repr()
_cut.maxstring = _cut.maxother = _cut.maxlong = _MAX_TEXT_CHARS
_cut.maxlevel = 2
