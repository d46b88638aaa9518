"""Hints on stderr: the next step, for a person at a terminal.

Called by the commands, when all else is printed. Apart from ``messages``, which the root command's options need.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .context import get_settings
from .messages import print_note

if TYPE_CHECKING:
    import typer


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
    print_note(text)
