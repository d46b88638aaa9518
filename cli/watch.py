"""The ``watch`` command, which runs the live view in a terminal: reads keys, refreshes and draws.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``watch_screen``, which holds the view's
state and its drawing. Only this module touches the terminal's mode.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .answerer import user_at_host
from .context import open_registry
from .output import on_terminal
from .tables import console

if TYPE_CHECKING:
    from jobdb.registry import Registry

    from .console import SanitizingConsole
    from .watch_screen import View

_MAX_REFRESH_SEC = 1.0
_MIN_REFRESH_SEC = 0.4
_KEY_POLL_SEC = 0.1
_ESCAPE_SEQUENCE_SEC = 0.05


def watch(
    ctx: typer.Context,
    agent: Annotated[
        str, typer.Option("--agent", "-a", metavar="TEXT", help="Only agents whose name contains TEXT.")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Draw the view once and exit.")] = False,
) -> None:
    """Watch the registry live in the terminal.

    Shows the number of jobs by status, the workers of 'jobdb work' with their busy slots, running jobs with their times
    and limits (those with an open question come first), and refused events. Keys: arrow keys select a job, Enter
    opens it, Esc goes back, a and d answer its only open question with allow or deny (y confirms), f selects the next
    status, / filters by agent (Enter ends the input), q quits. Works over ssh and needs a terminal of 80x24 or more.

    \b
    Example:
      jobdb watch --agent codex
    """
    from jobdb.errors import InvalidInput

    from .watch_screen import View

    screen = console()
    view = View(screen.size, agent=agent)
    with open_registry(ctx) as registry:
        if once:
            view.refresh(registry)
            screen.print(view.draw())
            return
        if not on_terminal() or not sys.stdin.isatty():
            raise InvalidInput(
                "watch needs a terminal; use 'jobdb watch --once', 'jobdb list' or 'jobdb stats' in a pipe"
            )
        _run(registry, view, screen)


def _run(registry: Registry, view: View, screen: SanitizingConsole) -> None:
    import time

    from rich.live import Live

    store, by = registry.store, user_at_host()
    with _key_reader(sys.stdin.fileno()) as read_keys, Live(console=screen, screen=True, auto_refresh=False) as live:
        drawn_version, drawn_at = -1, 0.0
        while not view.quit_requested:
            version, size = store.data_version(), screen.size
            age_sec = time.monotonic() - drawn_at
            if (
                view.dirty
                or view.size != size
                or age_sec >= _MAX_REFRESH_SEC
                or (drawn_version != version and age_sec >= _MIN_REFRESH_SEC)
            ):
                view.size, drawn_version = size, version
                view.refresh(registry)
                live.update(view.draw(), refresh=True)
                drawn_at = time.monotonic()
            view.handle_keys(read_keys(_KEY_POLL_SEC))
            view.send_answer(registry, by=by)


@contextmanager
def _key_reader(terminal: int) -> Iterator[Callable[[float], str]]:
    """Make the terminal pass keys at once and without echo; restore it however the block ends.

    Yields:
        A function that waits for keys for a number of seconds and returns them: "" for none, "q" when the terminal is
        gone.
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
            # A key such as "up" is several bytes, which a slow connection may deliver one by one.
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
