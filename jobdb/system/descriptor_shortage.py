"""The handling of a shortage of file descriptors, which can affect any call.

Called by the verbs of `Registry`, which turn it into an error that says what to do, by the SQLite engine, by ``model``
and by the command line; imports only ``errors``. A module imported at its first use, a statement file, a key: each
needs a descriptor, and gets a bare OSError if none is left.
"""

from __future__ import annotations

import errno
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTAGE_ERRNOS = (errno.EMFILE, errno.ENFILE)
SHORTAGE_ADVICE = "Close files or raise the limit (ulimit -n), and try again"
_Method = TypeVar("_Method", bound="Callable[..., Any]")


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means that the process or the system has no file descriptor left."""
    return isinstance(error, OSError) and error.errno in _SHORTAGE_ERRNOS


def shortage_error(error: BaseException) -> StorageFailed:
    """Return the library's error for a shortage."""
    what = (error.strerror if isinstance(error, OSError) else None) or "Too many open files"
    return StorageFailed(
        f"this process is out of file descriptors ({what}). {SHORTAGE_ADVICE}; "
        "if it was writing, first check whether the write was done"
    )


def translate_shortage(method: _Method) -> _Method:
    """Make a method raise StorageFailed when there is no file descriptor left.

    Said at each method of the registry but the ones that are called most often: their models and transactions report a
    shortage themselves.
    """

    @wraps(method)
    def translating(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except OSError as error:
            if is_shortage(error):
                raise shortage_error(error) from error
            raise

    return cast("_Method", translating)
