"""The command for the live view: watch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .settings import registry_of

if TYPE_CHECKING:
    from jobdb.registry import Registry

    from .watch_screen import View

_SLOWEST_SEC = 1.0
_FASTEST_SEC = 0.2


def watch(
    ctx: typer.Context,
    agent: Annotated[str, typer.Option("--agent", "-a", metavar="TEXT", help="Only agents whose name has this.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Draw one picture and end.")] = False,
) -> None:
    """Watch the registry live.

    Counts by status; running jobs with their times against their limits, those that ask for permission on
    top; refused events as they come. Keys: arrows choose a job, Enter opens it, Esc goes back, f changes the
    status shown, / filters by agent, q ends. Works over ssh, from 80x24 on.

    \b
    Example:
      jobdb watch --agent codex
    """
    from jobdb.errors import InvalidInput

    from . import output
    from .watch_screen import View

    view = View(agent=agent)
    with registry_of(ctx) as registry:
        if once:
            view.refresh(registry)
            output.console().print(view.draw(output.console().size))
            return
        if not output.on_terminal():
            raise InvalidInput(
                "watch needs a terminal; use 'jobdb watch --once', 'jobdb list' or 'jobdb stats' in a pipe"
            )
        _run(registry, view)


def _run(registry: Registry, view: View) -> None:
    import os
    import select
    import sys
    import time

    from rich.live import Live

    from . import output

    console = output.console()
    store = registry.engine.store
    with _keys(sys.stdin.fileno()), Live(console=console, screen=True, auto_refresh=False) as live:
        seen, drawn = -1, 0.0
        while not view.done:
            version, now = store.data_version(), time.monotonic()
            if version != seen or now - drawn >= _SLOWEST_SEC or view.dirty:
                view.refresh(registry)
                live.update(view.draw(console.size), refresh=True)
                seen, drawn = version, time.monotonic()
            if select.select([sys.stdin], [], [], _FASTEST_SEC)[0]:
                view.key(os.read(sys.stdin.fileno(), 32).decode(errors="replace"))


@contextmanager
def _keys(terminal: int) -> Iterator[None]:
    """Keys come one by one and are not echoed; the terminal is put back however this ends."""
    import termios
    import tty

    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
