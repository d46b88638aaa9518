"""Draw the packages of jobdb on their floors, from the imports that the code makes.

``python docs/generate_floors.py`` writes ``docs/explanation/floors.svg``; a test compares it with what would be drawn.
The floors and the graph are those that ``tests/unit/test_layers.py`` enforces. An arrow is an import. An arrow that
others imply (a package imports what its imports import) is left out, so that the order can be seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # run as a script: Python has put docs/ there alone

from generate_diagrams import _arrow, _svg, _text  # noqa: E402

from tests.unit.test_layers import FLOORS, GRAPH  # noqa: E402

PICTURE = Path(__file__).parent / "explanation" / "floors.svg"
_WIDTH, _HEIGHT, _COLUMN, _RISE, _MARGIN = 118, 36, 144, 84, 250
_COLUMNS = {
    **dict.fromkeys(("schema", "engines", "registry", "mqtt", "cli"), 2.0),
    **dict.fromkeys(("model", "core", "crypto"), 1.0),
    **dict.fromkeys(("system", "operations", "doctor"), 3.0),
    "errors": 0.0,
    "hooks": 0.2,
    "legacy": 0.2,
    "mcp": -0.7,
    "work": 1.1,
    "filesystem": 3.3,
    "urls": 4.0,
    "ui": 4.4,
}
"""Where a package is drawn on its floor, so that no arrow crosses a box."""


def packages() -> dict[str, set[str]]:
    """Return the packages, or modules, of the top level and what each of them imports."""
    found: dict[str, set[str]] = {name: set() for floor in FLOORS for name in floor}
    for name, targets in GRAPH.items():
        own = name.split(".")[1]
        found[own] |= {target.split(".")[1] for target in targets} - {own}
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the graph without the arrows that longer ways imply."""

    def reachable(name: str) -> set[str]:
        found: set[str] = set()
        for target in graph[name]:
            found |= {target} | reachable(target)
        return found

    return {
        name: {one for one in targets if not any(one in reachable(other) for other in targets - {one})}
        for name, targets in graph.items()
    }


def draw() -> str:
    """Return the picture."""
    width, height = round(_MARGIN + 5 * _COLUMN), len(FLOORS) * _RISE + 70
    number_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    middles = {
        name: (_MARGIN + _COLUMNS[name] * _COLUMN, height - 70 - number * _RISE - _HEIGHT / 2)
        for number, floor in enumerate(FLOORS)
        for name in floor
    }

    def parts() -> Iterator[str]:
        for name, targets in sorted(reduced(packages()).items()):
            x, y = middles[name]
            for target in sorted(targets):
                to_x, to_y = middles[target]
                if to_y == y:
                    if abs(to_x - x) <= 2.5 * _COLUMN and number_of[name] > 0:
                        side = _WIDTH / 2 if to_x > x else -_WIDTH / 2
                        yield _arrow(f"M{x + side:g} {y:g}L{to_x - side:g} {to_y:g}")
                    else:  # an arc below, since there are boxes between the two
                        low, dip = y + _HEIGHT / 2, 14 + abs(to_x - x) / 12
                        yield _arrow(f"M{x:g} {low:g}Q{(x + to_x) / 2:g} {low + 2 * dip:g} {to_x:g} {low:g}")
                else:
                    yield _arrow(f"M{x:g} {y + _HEIGHT / 2:g}L{to_x:g} {to_y - _HEIGHT / 2:g}")
        for name, (x, y) in sorted(middles.items()):
            corner = f'x="{x - _WIDTH / 2:g}" y="{y - _HEIGHT / 2:g}" width="{_WIDTH}" height="{_HEIGHT}"'
            yield f'<rect class="box" {corner} rx="6"/>'
            yield _text(x, y + 5, name)
        for number in range(len(FLOORS)):
            yield _text(14, height - 70 - number * _RISE - _HEIGHT / 2 + 5, f"floor {number + 1}", "key")

    return _svg(width, height, "The packages of jobdb on their floors, and what they import", parts())


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
