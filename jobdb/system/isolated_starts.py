"""Python processes that ``multiprocessing`` starts, and that import no module from the current folder either.

Called by the runner of handlers' processes. ``isolated_python`` says why, and is for processes that we start ourselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated_starts() -> Iterator[str | None]:
    """Let Python processes that other code starts in the block not search the current folder, as ``-c`` does.

    For ``multiprocessing``, whose command cannot be chosen. Yields ``PYTHONSAFEPATH`` as it was, which the started
    process should restore for its own children with :func:`restore_safe_path`.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield before
    finally:
        restore_safe_path(before)


def restore_safe_path(before: str | None) -> None:
    """Set ``PYTHONSAFEPATH`` as it was before :func:`isolated_starts`."""
    if before is None:
        os.environ.pop("PYTHONSAFEPATH", None)
    else:
        os.environ["PYTHONSAFEPATH"] = before
