"""Messages on stderr: errors, warnings, notes and progress; all sanitized, and never a reason to fail.

Called by the commands, and by ``main`` for the error that ends one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from jobdb.system.terminal import sanitize

from .settings import get_settings

if TYPE_CHECKING:
    import typer


def print_error(text: str) -> None:
    """Print what went wrong and what to do next."""
    _print(f"jobdb: {sanitize(text)}")


def print_warning(text: str) -> None:
    """Print something that works but should be changed."""
    _print(f"jobdb: warning: {sanitize(text)}")


def print_note(text: str) -> None:
    """Print what was done."""
    _print(sanitize(text))


def print_hint(text: str, ctx: typer.Context | None = None) -> None:
    """Print a suggestion for the next step, on a terminal only: scripts do not need it.

    Args:
        text: a sentence; each ``jobdb `` in it begins a command.
        ctx: the current command's context, where the suggested commands work on this database: they get its ``--db``.
    """
    if not sys.stderr.isatty():
        return
    if ctx is not None:
        text = text.replace("jobdb ", f"{get_settings(ctx).suggested_command()} ")
    _print(sanitize(text))


def show_progress(unit: str) -> Callable[[int, int], None]:
    """Return a callback that shows progress on one line of a terminal; scripts see nothing of it.

    Args:
        unit: what is counted, as in ``records``.

    Returns:
        A function of how many are done and how many there are in all.
    """

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() and total and sys.__stderr__ is not None:
            # Erased at the end: the result counts, and the work may have several passes.
            text = f"\r{' ' * 40}\r" if done == total else f"\r{done} of {total} {unit}"
            with suppress(OSError):
                # Past the sanitizing stream, which would make the \r visible.
                print(text, end="", file=sys.__stderr__, flush=True)

    return show


def _print(text: str) -> None:
    with suppress(OSError):  # nobody reads stderr; the exit code still tells the result
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
