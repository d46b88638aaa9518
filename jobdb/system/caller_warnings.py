"""Warnings that name the caller's line: the first one outside of jobdb, however deep inside the warning is given.

Called by the engines and the vault. Python 3.12 has ``skip_file_prefixes`` for this; for 3.11, the frames are counted
here.
"""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str) -> None:
    """Give a ``UserWarning`` at the line that called into jobdb.

    Args:
        message: what is wrong, with what, and what to do.

    Example:
        >>> warn_caller("the folder has mode 0755; fix it with: chmod 700 /srv/jobs")
    """
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level + 1)


def _is_inside(module: str) -> bool:
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")
