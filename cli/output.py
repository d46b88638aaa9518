"""How commands speak: data on stdout, messages on stderr; tables and colours only on a terminal.

Called by every command. Rich is imported only when something is drawn on a terminal. Text that came from somebody
else (prompts, details, names) is made harmless first: a control character in a prompt must not steer the terminal.
Functions here do that to what they are given; on a terminal the streams do it again to whatever comes by another way
(`jobdb.system.terminal`), and so does the console on which tables are drawn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jobdb.system.terminal import sanitize, sanitize_json, wrap_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from jobdb.errors import StorageFailed

Cell = str | tuple[str, str]
"""A cell of a table: its text, or the text and a style that is used on a terminal."""

_MAX_CELLS = 40
_MIN_CELLS = 12
_GAP = 2
_command = "jobdb"


def prepare_streams() -> None:
    """UTF-8 out, whatever the locale says; what UTF-8 cannot hold is written as an escape.

    A closed stream becomes an empty one, so that no file that is opened later takes its place and gets what was meant
    for it. But where stdout is closed nothing is begun: its answer would be lost.

    Raises:
        InvalidInput: stdout is closed.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        from jobdb.errors import InvalidInput

        raise InvalidInput("stdout is closed; leave it open, or send it somewhere, as with >/dev/null")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stdout, sys.stderr = wrap_terminal(sys.stdout), wrap_terminal(sys.stderr)


def on_terminal() -> bool:
    """Whether stdout is a terminal that can show tables."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


# -- stdout


def line(text: str) -> None:
    """One line of data."""
    try:
        sys.stdout.write(text + "\n")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_failed(error) from error


def json_line(value: Any) -> None:
    """One JSON value on one line: compact, and in UTF-8, but for characters that a terminal would not show."""
    import json

    line(sanitize_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))


def payload_line(payload: str) -> None:
    """One event's payload: exactly as it travels; on a terminal the same JSON, with escapes for what would not show."""
    line(sanitize_json(payload) if sys.stdout.isatty() else payload)


def tsv_line(*values: object) -> None:
    """One line of values, tabs between; None is ``-``."""
    line("\t".join("-" if value is None else sanitize(str(value)) for value in values))


def flush() -> None:
    """Hands everything to the reader now: before a pause, and before an event counts as handled."""
    broken = flush_or_discard_stdout()
    if isinstance(broken, BrokenPipeError):
        raise broken
    if broken is not None:
        raise stdout_failed(broken) from broken


def flush_or_discard_stdout() -> OSError | None:
    """Hand everything over; where that fails, let the rest go nowhere, or the interpreter's last flush fails aloud.

    Returns:
        How it failed.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def stdout_failed(error: OSError) -> StorageFailed:
    """The error for data that could not be handed over: a full disk, a terminal that is gone."""
    from jobdb.errors import StorageFailed

    return StorageFailed(
        f"stdout could not be written: {error.strerror}. What the command did stands, and some of its answer is lost: "
        "mend that, and look at the state before running it again"
    )


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, wide: str | None = None, fold: bool = False
) -> None:
    """Rows as a table on a terminal, else as lines of values with tabs between and no heading.

    Args:
        columns: the headings.
        rows: a cell for each column.
        wide: the column that is shortened first when the terminal is narrow.
        fold: that column goes on in further lines instead of being shortened.
    """
    if not on_terminal():
        for row in rows:
            tsv_line(*(_text(cell) for cell in row))
        return
    from rich.table import Table
    from rich.text import Text

    columns = [sanitize(column) for column in columns]
    cells = [[Text(sanitize(_text(cell)), style=_style(cell)) for cell in row] for row in rows]
    widths = [max([len(column), *(row[number].cell_len for row in cells)]) for number, column in enumerate(columns)]
    widths[1:] = [min(width, _MAX_CELLS) for width in widths[1:]]
    screen = console()
    if wide is not None:
        # The wide one gives way, so that the others stay: left to itself Rich shortens all alike, down to nothing.
        others = sum(widths) - widths[columns.index(wide)] + _GAP * (len(columns) - 1)
        widths[columns.index(wide)] = max(len(wide), screen.width - others)
    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        folded = fold and column == wide
        drawn.add_column(column, no_wrap=not folded, overflow="fold" if folded else "ellipsis", max_width=width)
    for drawn_row in cells:
        drawn.add_row(*drawn_row)
    screen.print(drawn)


def table_fits(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bool:
    """Whether a table of these has, on this terminal, room for each column's heading and a few letters of its text."""
    widest = [max([0, *(len(_text(row[number])) for row in rows)]) for number in range(len(columns))]
    needed = [max(len(column), min(width, _MIN_CELLS)) for column, width in zip(columns, widest, strict=True)]
    return sum(needed) + _GAP * (len(columns) - 1) <= console().width


def console() -> Console:
    """A terminal to draw on. Rich heeds NO_COLOR and the terminal's width by itself."""
    from .console import PlainConsole

    return PlainConsole()


def record(pairs: Mapping[str, Cell | None]) -> None:
    """Names and values, a line each; what is None is left out."""
    shown = {name: cell for name, cell in pairs.items() if cell is not None}
    if not on_terminal():
        for name, cell in shown.items():
            line(f"{sanitize(name)}: {sanitize(_text(cell))}")
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, cell in shown.items():
        drawn.add_row(sanitize(name), Text(sanitize(_text(cell), keep="\n"), style=_style(cell)))
    console().print(drawn)


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def _style(cell: Cell) -> str:
    return "" if isinstance(cell, str) else cell[1]


# -- stderr


def print_error(text: str) -> None:
    """What went wrong and what to do."""
    _to_stderr(f"jobdb: {sanitize(text)}")


def warn(text: object) -> None:
    """What works and should be otherwise."""
    _to_stderr(f"jobdb: warning: {sanitize(str(text))}")


def note(text: str) -> None:
    """What was done."""
    _to_stderr(sanitize(text))


def set_hint_database(url: str | None) -> None:
    """Notes the ``--db`` that was given, so that the commands that are suggested work on the same database."""
    global _command
    if url is None or ("://" in url and not url.startswith("sqlite:")):
        return  # the default; or an address that may hold a password
    import shlex

    _command = f"jobdb --db {shlex.quote(url)}"


def shell_quote(text: str) -> str:
    """``text`` as one word of a command that is suggested: people paste those, and a database may hold any name."""
    import shlex

    return shlex.quote(text)


def hint(text: str, *, here: bool = True) -> None:
    """What a person may want to do next; scripts are not bothered with it.

    Args:
        text: a sentence; each ``jobdb `` in it is a command, and gets the ``--db`` of this one.
        here: it is about this database; otherwise about another machine.
    """
    if sys.stderr.isatty():
        _to_stderr(sanitize(text.replace("jobdb ", f"{_command} ") if here else text))


def progress(what: str) -> Callable[[int, int], None]:
    """A counter for long work, on one line of a terminal; scripts see nothing of it."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() and total and sys.__stderr__ is not None:
            # It gives way to what is said next: the result counts, and the work may have several passes.
            text = f"\r{' ' * 40}\r" if done == total else f"\r{done} of {total} {what}"
            with suppress(OSError):
                print(text, end="", file=sys.__stderr__, flush=True)  # past the guard, which would show the \r

    return show


def _to_stderr(text: str) -> None:
    with suppress(OSError):  # nobody listens; the exit code still says it
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
