"""The handling of a shortage of file descriptors, which can affect any call.

A module imported at its first use, a statement file, a key: each needs a descriptor, and gets a bare OSError if none is
left. The verbs of `Registry` turn it into an error that says what to do; the SQLite engine checks for it too.
"""

from __future__ import annotations

import errno
from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTAGE_ERRNOS = (errno.EMFILE, errno.ENFILE)
SHORTAGE_ADVICE = "Close files or raise the limit (ulimit -n), and try again"
_GENERATOR = 0x20
"""``inspect.CO_GENERATOR``; importing inspect takes longer than most commands."""
_Class = TypeVar("_Class", bound=type)
_UNWRAPPED = ("publish", "publish_many", "claim", "renew", "release", "get")
"""The most frequent verbs, which need no wrapper: their models and transactions report a shortage themselves."""


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means that the process or the system has no file descriptor left."""
    return isinstance(error, OSError) and error.errno in _SHORTAGE_ERRNOS


def shortage_error(error: BaseException) -> StorageFailed:
    """Return the library's error for a shortage."""
    what = getattr(error, "strerror", None) or "Too many open files"
    return StorageFailed(
        f"this process is out of file descriptors ({what}). {SHORTAGE_ADVICE}; "
        "if it was writing, first check whether the write was done"
    )


def translate_shortage(cls: _Class) -> _Class:
    """Make the public methods of a class raise StorageFailed if no file descriptor is left."""
    for name, found in list(vars(cls).items()):
        if not isinstance(found, FunctionType) or name.startswith("_") or name in _UNWRAPPED:
            continue
        if not found.__code__.co_flags & _GENERATOR:
            setattr(cls, name, _wrap(found))
    return cls


def _wrap(verb: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(verb)
    def named(*arguments: Any, **options: Any) -> Any:
        try:
            return verb(*arguments, **options)
        except OSError as error:
            if is_shortage(error):
                raise shortage_error(error) from error
            raise

    return named
