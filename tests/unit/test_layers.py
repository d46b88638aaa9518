"""Test the layers: floors, no import upward, no cycle, heavy packages only where used, callers named in each file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS = (
    {"errors", "urls", "schema", "system", "model"},
    {"core"},
    {"filesystem", "crypto"},
    {"engines"},
    {"registry"},
    {"operations", "mqtt", "legacy", "work", "mcp"},
    {"doctor", "ui", "hooks"},
    {"cli"},
)
"""Lower floors first. A module may import from its own floor and from lower ones."""

STOREYS = {
    "engines": (
        {"statements", "verbs", "liveness", "traits", "stable_events"},
        {"store"},
        {"sql", "tracing"},
        {"identity", "place"},
        {"sqlite", "postgresql", "trust"},
        {"open"},
    ),
    "legacy": (
        {"format", "frames"},
        {"folder", "database", "report"},
        {"importing", "exporting"},
        {"registry_cli", "registry_connections"},
        {"registry"},
    ),
}
"""The order inside of a package that has one, by the same rule."""

APART = (
    {"jobdb.engines.sqlite", "jobdb.engines.postgresql"},
    {"jobdb.legacy.folder", "jobdb.legacy.database"},
    {"jobdb.legacy.importing", "jobdb.legacy.exporting"},
)
"""Packages of one floor that know nothing of each other."""

CALLERS = re.compile(
    r"\b(Called|Used|Started|Created|Read|Imported|Raised|Run|Asked|Implemented)\b(?:(?!\.\s).)*\bby\b",
    re.IGNORECASE | re.DOTALL,
)
"""The sentence of a file's docstring that says who calls it."""

HEAVY = ["paho", "psycopg", "rich", "sqlite_utils", "datasette", "textual", "mcp"]


def modules() -> dict[str, Path]:
    """Return every module by its import name, except ``jobdb/__init__.py``, which exports names of all floors."""
    found = {}
    for folder, package in (("jobdb", "jobdb"), ("schema", "jobdb.schema"), ("cli", "jobdb.cli")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    del found["jobdb"]
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """Return the modules that a module imports, anywhere in the file, including imports for types."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {target if (target := f"{module}.{alias.name}") in MODULES else module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & MODULES.keys()) - {name}


GRAPH = {name: imports(name) for name in MODULES}


def number(order: tuple[set[str], ...], part: str, where: str) -> int:
    for place, names in enumerate(order):
        if part in names:
            return place
    raise AssertionError(f"{where} is on no floor: say in this file which one it is on")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_downward(name: str) -> None:
    _, top, *below = name.split(".")
    own = number(FLOORS, top, name)
    for target in GRAPH[name]:
        _, other, *inner = target.split(".")
        assert number(FLOORS, other, target) <= own, f"{name} imports {target}, which is above it"
        if other == top and top in STOREYS and below and inner:
            order = STOREYS[top]
            if below[0] != inner[0]:
                assert number(order, inner[0], target) <= number(order, below[0], name), (
                    f"{name} imports {target}, which is above it"
                )
        for group in APART:
            sides = [{side for side in group if one.startswith(side + ".")} for one in (name, target)]
            assert not sides[0] or not sides[1] or sides[0] == sides[1], f"{name} imports {target}, which is apart"


def test_every_engine_is_apart_from_the_others() -> None:
    engines = {name.removesuffix(".store") for name in MODULES if re.fullmatch(r"jobdb\.engines\.\w+\.store", name)}
    assert len(engines) > 1 and engines in APART


def test_there_is_no_import_cycle() -> None:
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "an import cycle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in finished:
            for target in sorted(GRAPH[name]):
                visit(target, (*path, name))
            finished.add(name)

    for name in sorted(MODULES):
        visit(name, ())


def test_files_have_one_subject() -> None:
    """A limit on the length does not prove it, but longer files have had two subjects."""
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_each_file_says_who_calls_it() -> None:
    """Whoever opens a file learns from its first ten lines what it is for and who needs it."""
    silent = []
    for path in sorted({*MODULES.values(), ROOT / "jobdb" / "__init__.py"}):
        text = path.read_text("utf-8")
        is_short_package = path.name == "__init__.py" and len(text.splitlines()) < 3
        if is_short_package or path == ROOT / "cli" / "__main__.py":
            continue
        docstring = ast.get_docstring(ast.parse(text), clean=False) or ""
        if not CALLERS.search("\n".join(docstring.splitlines()[:10])):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == [], "name the callers in the first ten lines: 'Called by ...'"


def test_the_pure_floor_touches_nothing() -> None:
    touching = {"os", "time", "socket", "sqlite3", "apsw", "pathlib", "subprocess", "random", "secrets"}
    for name, path in MODULES.items():
        if name.startswith("jobdb.core"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                assert not touching & {name.split(".")[0] for name in names}, path.name


@pytest.mark.parametrize(
    "code", ["import jobdb", "import jobdb.cli, sys; sys.argv = ['jobdb', '--help']; jobdb.cli.main()"]
)
def test_heavy_packages_are_imported_only_where_used(code: str) -> None:
    check = (
        "import atexit, sys\n"
        f"heavy = {HEAVY!r}\n"
        "atexit.register(lambda: print('HEAVY', [n for n in heavy if n in sys.modules], file=sys.stderr))\n" + code
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert "HEAVY []" in done.stderr
