"""The report to observers of an exception that ended the work on a job: a sentence and facts, within an event's limits.

Called by ``Registry.working`` and the worker. Pure.
"""

from __future__ import annotations

from typing import Any

_MOST_CHARS = 2000


def describe_exception(error: BaseException) -> tuple[str, dict[str, Any]]:
    """Return an exception as a sentence, and as ``data``: its type and message.

    Example:
        >>> describe_exception(ValueError("no input"))
        ('ValueError: no input', {'exception': 'ValueError', 'message': 'no input'})
    """
    kind = type(error).__name__
    try:
        message = clean(str(error))
    except Exception:  # a foreign __str__ may raise anything, and the outcome must still be recorded
        message = ""
    return (f"{kind}: {message}" if message else kind), {"exception": kind, "message": message}


def clean(text: str, most: int = _MOST_CHARS) -> str:
    """Return text that an event can hold: without lone surrogates and NUL, shortened.

    Args:
        text: any text.
        most: the maximum number of characters.
    """
    valid = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return valid if len(valid) <= most else valid[: most - 1] + "…"
