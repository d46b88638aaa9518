"""The command for the live view: watch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .context import open_registry

if TYPE_CHECKING:
    from jobdb.registry import Registry

    from .watch_screen import View

_MAX_REFRESH_SEC = 1.0
_MIN_REFRESH_SEC = 0.4
_KEY_POLL_SEC = 0.1
_ESCAPE_SEQUENCE_SEC = 0.05


def watch(
    ctx: typer.Context,
    agent: Annotated[str, typer.Option("--agent", "-a", metavar="TEXT", help="Only agents whose name has this.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Draw one picture and end.")] = False,
) -> None:
    """Watch the registry live.

    Counts by status; running jobs with their times against their limits, those that ask for permission on
    top; refused events as they come. Keys: arrows choose a job, Enter opens it, Esc goes back, f changes the
    status shown, / filters by agent (Enter ends the typing), q ends. Works over ssh, from 80x24 on.

    \b
    Example:
      jobdb watch --agent codex
    """
    from jobdb.errors import InvalidInput

    from . import output
    from .watch_screen import View

    view = View(agent=agent)
    with open_registry(ctx) as registry:
        if once:
            view.refresh(registry)
            output.console().print(view.draw(output.console().size))
            return
        if not output.on_terminal() or not sys.stdin.isatty():
            raise InvalidInput(
                "watch needs a terminal; use 'jobdb watch --once', 'jobdb list' or 'jobdb stats' in a pipe"
            )
        _run(registry, view)


def _run(registry: Registry, view: View) -> None:
    import time

    from rich.live import Live

    from . import output

    console = output.console()
    store = registry.store
    with _key_reader(sys.stdin.fileno()) as read_keys, Live(console=console, screen=True, auto_refresh=False) as live:
        version, drawn, size = -1, 0.0, console.size
        while not view.done:
            seen, now = store.data_version(), time.monotonic()
            old = now - drawn
            if (
                view.dirty
                or size != console.size
                or old >= _MAX_REFRESH_SEC
                or (seen != version and old >= _MIN_REFRESH_SEC)
            ):
                size, version = console.size, seen
                view.refresh(registry)
                live.update(view.draw(size), refresh=True)
                drawn = time.monotonic()
            view.key(read_keys(_KEY_POLL_SEC))


@contextmanager
def _key_reader(terminal: int) -> Iterator[Callable[[float], str]]:
    """Keys come one by one and are not echoed; the terminal is put back however this ends.

    Yields what waits for keys, for so many seconds, and returns them: "" for none, "q" when the terminal has gone.
    """
    import os
    import re
    import select
    import signal
    import termios
    import tty

    def read(seconds: float) -> str:
        typed = b""
        while select.select([terminal], [], [], seconds)[0]:
            more = os.read(terminal, 64)
            if not more:
                return "q"
            typed += more
            # A key such as "up" is several bytes, which a slow line may deliver one by one.
            if not re.search(rb"\x1b(\[[0-9;]*|O)?$", typed):
                break
            seconds = _ESCAPE_SEQUENCE_SEC
        return typed.decode(errors="ignore")

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(143)

    before = termios.tcgetattr(terminal)
    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(terminal)
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
