"""Tables and records: drawn with Rich on a terminal, printed as plain lines elsewhere.

Called by the commands that show rows; imports Rich only on a terminal. All text is sanitized.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from jobdb.system.terminal import sanitize

from .output import on_terminal, print_line, print_tsv

if TYPE_CHECKING:
    from .console import SanitizingConsole

Cell = str | tuple[str, str]
"""A cell of a table: its text, or the text and a style that is used on a terminal."""

_MAX_COLUMN_WIDTH = 40
_MIN_COLUMN_WIDTH = 12
_GAP = 2


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, wide: str | None = None, fold: bool = False
) -> None:
    """Print rows as a table on a terminal, else as lines of tab-separated values without a heading.

    Args:
        columns: the headings.
        rows: a cell for each column.
        wide: the column that is shortened first when the terminal is narrow.
        fold: continue that column on further lines instead of shortening it.
    """
    if not on_terminal():
        for row in rows:
            print_tsv(*(_text(cell) for cell in row))
        return
    from rich.table import Table
    from rich.text import Text

    columns = [sanitize(column) for column in columns]
    cells = [[Text(sanitize(_text(cell)), style=_style(cell)) for cell in row] for row in rows]
    widths = [max([len(column), *(row[number].cell_len for row in cells)]) for number, column in enumerate(columns)]
    widths[1:] = [min(width, _MAX_COLUMN_WIDTH) for width in widths[1:]]
    screen = console()
    if wide is not None:
        # Only the wide column is shortened: by itself Rich shortens all columns alike, down to nothing.
        others = sum(widths) - widths[columns.index(wide)] + _GAP * (len(columns) - 1)
        widths[columns.index(wide)] = max(len(wide), screen.width - others)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        folded = fold and column == wide
        table.add_column(column, no_wrap=not folded, overflow="fold" if folded else "ellipsis", max_width=width)
    for texts in cells:
        table.add_row(*texts)
    screen.print(table)


def table_fits(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bool:
    """Tell whether this terminal has room for each column's heading and a few letters of its text."""
    widest = [max([0, *(len(_text(row[number])) for row in rows)]) for number in range(len(columns))]
    needed = [max(len(column), min(width, _MIN_COLUMN_WIDTH)) for column, width in zip(columns, widest, strict=True)]
    return sum(needed) + _GAP * (len(columns) - 1) <= console().width


def print_record(pairs: Mapping[str, Cell | None]) -> None:
    """Print names and values, one pair per line; leave out those whose value is None."""
    shown = {name: cell for name, cell in pairs.items() if cell is not None}
    if not on_terminal():
        for name, cell in shown.items():
            print_line(f"{sanitize(name)}: {sanitize(_text(cell))}")
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, cell in shown.items():
        grid.add_row(sanitize(name), Text(sanitize(_text(cell), keep="\n"), style=_style(cell)))
    console().print(grid)


_CHECK_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def print_checks(rows: Iterable[tuple[str, str, str, str | None]]) -> None:
    """Print one row per check: its level (ok, warn or fail), its name, what was found, and the fix or None."""
    if not on_terminal():
        for row in rows:
            print_tsv(*row)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for level, check, message, fix_command in rows:
        text = Text(sanitize(message))
        if fix_command:
            text.append(f"\n→ {sanitize(fix_command)}", "cyan")
        grid.add_row(Text(level, _CHECK_STYLES[level]), check, text)
    console().print(grid)


def console() -> SanitizingConsole:
    """Return a terminal to draw on. Rich itself respects NO_COLOR and the terminal's width."""
    from .console import SanitizingConsole

    return SanitizingConsole()


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def _style(cell: Cell) -> str:
    return "" if isinstance(cell, str) else cell[1]
