"""Generates the documentation's diagrams as SVG files beside the pages that show them.

Run ``python docs/generate_diagrams.py``; a test checks that the files are up to date. The lifecycle of a job comes from
the table of transitions that the engines use, the schema from the migrations.
"""

from __future__ import annotations

import html
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jobdb.schema import migration_files

from jobdb.core.lifecycle import TRANSITIONS
from jobdb.model import JobStatus

FOLDER = Path(__file__).parent
STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #1f2430; }
.key { font: 12px ui-monospace, monospace; }
.name { font-weight: 600; }
.middle { text-anchor: middle; }
.box { fill: #eef1f8; stroke: #3f51b5; stroke-width: 1.5; }
.final { stroke-width: 4; }
.head { fill: #d5daf0; stroke: none; }
.line { fill: none; stroke: #5b6478; stroke-width: 1.5; }
.tip { fill: #5b6478; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e8ef; }
  .box { fill: #262b3b; stroke: #8c9eff; }
  .head { fill: #343b54; }
  .line { stroke: #a5adc2; }
  .tip { fill: #a5adc2; }
}
"""
TIP = (
    '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
    'orient="auto-start-reverse"><path class="tip" d="M0 0L10 5L0 10z"/></marker></defs>'
)


def _svg(width: int, height: int, title: str, parts: Iterator[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{html.escape(title)}</title>\n<style>\n{STYLE}</style>\n{TIP}\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _text(x: float, y: float, text: str, kind: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{html.escape(text)}</text>'


def _arrow(path: str) -> str:
    return f'<path class="line" d="{path}" marker-end="url(#tip)"/>'


# -- the lifecycle of a job

_WIDTH, _HEIGHT = 130, 44
_STATUS_POSITIONS = {
    "pending": (170, 220),
    "running": (730, 220),
    "completed": (450, 120),
    "error": (450, 220),
    "cancelled": (450, 320),
}


def triggers() -> dict[tuple[str, str], list[str]]:
    """Return the triggers of each transition, by its two statuses: each pair is one arrow."""
    transitions: dict[tuple[str, str], list[str]] = {}
    for (source, trigger), target in TRANSITIONS.items():
        transitions.setdefault((source.value, target.value), []).append(trigger)
    return transitions


def lifecycle() -> str:
    """Return the diagram of a job's statuses and transitions."""
    return _svg(940, 440, "The life of a job", _lifecycle())


def _lifecycle() -> Iterator[str]:
    for (source, target), names in triggers().items():
        yield from _transition(source, target, ", ".join(names))
    x, y = _STATUS_POSITIONS["pending"]
    yield f'<circle class="tip" cx="24" cy="{y}" r="7"/>'
    yield _arrow(f"M31 {y}H{x - _WIDTH / 2}")
    yield _text((31 + x - _WIDTH / 2) / 2, y - 8, "register")
    for status in JobStatus:
        x, y = _STATUS_POSITIONS[status.value]
        kind = "box final" if status.terminal else "box"
        yield (
            f'<rect class="{kind}" x="{x - _WIDTH / 2:g}" y="{y - _HEIGHT / 2:g}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" rx="10"/>'
        )
        yield _text(x, y + 5, status.value, "name middle")


def _transition(source: str, target: str, label: str) -> Iterator[str]:
    (x, y), (to_x, to_y) = _STATUS_POSITIONS[source], _STATUS_POSITIONS[target]
    middle = (x + to_x) / 2
    if source == target:
        top = y - _HEIGHT / 2
        yield _arrow(f"M{x + 30} {top}C{x + 60} {top - 60} {x - 10} {top - 60} {x + 10} {top}")
        for row, part in enumerate(_split_label(label)):
            yield _text(x + 60, top - 66 + 17 * row, part)
    elif (source, target) == ("pending", "running"):
        yield _arrow(f"M{x} {y - _HEIGHT / 2}C{x} 20 {to_x - 70} 20 {to_x - 30} {y - _HEIGHT / 2}")
        yield _text(middle - 20, 50, label)
    elif (source, target) == ("running", "pending"):
        yield _arrow(f"M{x} {y + _HEIGHT / 2}C{x} 420 {to_x} 420 {to_x} {y + _HEIGHT / 2}")
        yield _text(middle, 400, label)
    else:
        side = 1 if to_x > x else -1
        start, end = x + side * _WIDTH / 2, to_x - side * (_WIDTH / 2 + 2)
        yield _arrow(f"M{start} {y + (to_y - y) * 0.1:g}L{end} {to_y}")
        beside = -28 if to_y < y else 30 if to_y > y else -8
        yield _text((start + end) / 2, (y + to_y) / 2 + beside, label)


def _split_label(label: str) -> list[str]:
    words = label.split(", ")
    half = (len(words) + 1) // 2
    return [", ".join(words[:half]) + ",", ", ".join(words[half:])] if len(words) > 2 else [label]


# -- the schema


class Reference(NamedTuple):
    """A foreign key; ``single`` when each row of the parent has at most one row of the child."""

    child: str
    column: str
    parent: str
    single: bool


_TABLE_WIDTH, _ROW, _GAP_X, _GAP_Y, _TOP = 210, 19, 110, 22, 46


def schema() -> str:
    """Return the diagram of the tables, their keys and their references."""
    connection = sqlite3.connect(":memory:")
    try:
        for _number, _name, path in migration_files("sqlite"):
            connection.executescript(path.read_text("utf-8"))
        keys, references = read_schema(connection)
    finally:
        connection.close()
    return _draw_schema(keys, references)


def read_schema(connection: sqlite3.Connection) -> tuple[dict[str, list[tuple[str, str]]], list[Reference]]:
    """Return each table's key columns, with "PK" or "FK", and all references."""
    keys: dict[str, list[tuple[str, str]]] = {}
    references = []
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
    )
    for (table,) in names.fetchall():
        columns = cursor.execute(f"PRAGMA table_info({table})").fetchall()
        rank = {column["name"]: column["pk"] for column in columns}  # position in the primary key, from 1; else 0
        single_column_key = sum(map(bool, rank.values())) == 1
        own_references = [
            Reference(table, key["from"], key["table"], rank[key["from"]] == 1 and single_column_key)
            for key in cursor.execute(f"PRAGMA foreign_key_list({table})")
        ]
        references += own_references
        foreign_keys = {reference.column for reference in own_references}
        keys[table] = [(name, "PK" if rank[name] else "FK") for name in rank if rank[name] or name in foreign_keys]
    return keys, references


def _draw_schema(keys: dict[str, list[tuple[str, str]]], references: list[Reference]) -> str:
    def depth(table: str) -> int:
        return max((1 + depth(reference.parent) for reference in references if reference.child == table), default=0)

    joined = {reference.child for reference in references} | {reference.parent for reference in references}
    columns: dict[int, list[str]] = {}
    for table in keys:
        columns.setdefault(depth(table) if table in joined else -1, []).append(table)
    unconnected = columns.pop(-1, [])
    positions: dict[str, tuple[float, float]] = {}
    bottom = float(_TOP)
    for number, tables in sorted(columns.items()):
        y = float(_TOP)
        for table in tables:
            positions[table] = (20 + number * (_TABLE_WIDTH + _GAP_X), y)
            y += _table_height(keys[table]) + _GAP_Y
        bottom = max(bottom, y)
    across = len(columns)
    for first in range(0, len(unconnected), across):
        for number, table in enumerate(unconnected[first : first + across]):
            positions[table] = (20 + number * (_TABLE_WIDTH + _GAP_X), bottom + 16)
        bottom += 16 + max(_table_height(keys[table]) for table in unconnected[first : first + across])
    width = 40 + across * _TABLE_WIDTH + (across - 1) * _GAP_X
    return _svg(width, int(bottom) + 20, "The tables and their references", _tables(keys, references, positions, depth))


def _table_height(columns: list[tuple[str, str]]) -> float:
    return 28 + _ROW * len(columns) + 6


def _tables(
    keys: dict[str, list[tuple[str, str]]],
    references: list[Reference],
    positions: dict[str, tuple[float, float]],
    depth: Callable[[str], int],
) -> Iterator[str]:
    for reference in references:
        (x, y), (to_x, to_y) = positions[reference.parent], positions[reference.child]
        row = [name for name, _ in keys[reference.child]].index(reference.column)
        to_y += 28 + _ROW * (row + 0.5)
        start, end = x + _TABLE_WIDTH, to_x
        if depth(reference.child) - depth(reference.parent) == 1:
            bend = (start + end) / 2
            curve = f"M{start:g} {y + 14:g}C{bend:g} {y + 14:g} {bend:g} {to_y:g} {end:g} {to_y:g}"
            yield f'<path class="line" d="{curve}"/>'
        else:  # above the tables in between
            turn = end - _GAP_X / 3
            over = _TOP - 24
            yield f'<path class="line" d="M{start - 30:g} {y:g}V{over}H{turn:g}V{to_y:g}H{end:g}"/>'
        yield _cardinality_mark(end, to_y, reference.single)
    for table, (x, y) in positions.items():
        height = _table_height(keys[table])
        yield f'<rect class="box" x="{x:g}" y="{y:g}" width="{_TABLE_WIDTH}" height="{height:g}" rx="5"/>'
        yield f'<rect class="head" x="{x + 1:g}" y="{y + 1:g}" width="{_TABLE_WIDTH - 2}" height="26" rx="4"/>'
        yield _text(x + 10, y + 19, table, "name")
        for row, (column, kind) in enumerate(keys[table]):
            yield _text(x + 10, y + 28 + _ROW * (row + 1) - 5, column, "key")
            yield _text(x + _TABLE_WIDTH - 30, y + 28 + _ROW * (row + 1) - 5, kind, "key")


def _cardinality_mark(x: float, y: float, single: bool) -> str:
    """Return the mark for how many rows may refer to one: a bar for one, a crow's foot for many."""
    if single:
        return f'<path class="line" d="M{x - 8:g} {y - 6:g}V{y + 6:g}"/>'
    return f'<path class="line" d="M{x:g} {y - 7:g}L{x - 11:g} {y:g}L{x:g} {y + 7:g}"/>'


DIAGRAMS: dict[Path, Callable[[], str]] = {
    FOLDER / "explanation" / "lifecycle.svg": lifecycle,
    FOLDER / "reference" / "schema.svg": schema,
}


if __name__ == "__main__":
    for target, draw in DIAGRAMS.items():
        target.write_text(draw(), encoding="utf-8")
        print(f"wrote {target}")
