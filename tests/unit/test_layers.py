"""The house's order: imports run one way, and heavy packages are imported only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "jobdb"

# Lower layers first; a module may import from its own layer and from lower ones.
LAYERS = [
    {"errors", "model", "shortage"},
    {
        "lifecycle",
        "urls",
        "protocol",
        "replay",
        "vault",
        "masterkey",
        "filemodes",
        "descriptors",
        "flag",
        "atomic_files",
        "ofd_locks",
        "kernel_locks",
        "given_secret",
        "environment",
        "interpreters",
        "terminal",
    },
    {"mountinfo", "filesystem", "filesystem_policy"},
    {"nfs_exports"},
    {"probe", "probe_checks", "probe_hands", "probe_helper", "probe_peer", "probe_record"},
    {"arguments", "engines", "companions", "identity", "migrations", "trust"},
    {"subscription", "tokens"},
    {"registry"},
    {
        "legacy",
        "mqtt",
        "doctor",
        "copy",
        "backup",
        "restoring",
        "saved_file",
        "swapping",
        "stats",
        "prometheus",
        "queries",
        "watching",
        "ui",
    },
]
HEAVY = ["paho", "psycopg", "rich", "sqlite_utils", "datasette", "textual"]


def layer_of(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if module in names:
            return number
    raise AssertionError(f"jobdb.{module} has no place in LAYERS: say which layer it is in")


def imported_modules(path: Path) -> set[str]:
    """The top modules of jobdb that a file imports, wherever in the file."""
    inside = path.relative_to(ROOT).with_suffix("").parts
    package = inside if path.name == "__init__.py" else inside[:-1]
    package = package[:-1] if path.name == "__init__.py" else package
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = (*base, *(node.module or "").split(".")) if node.module or base else ()
            names = tuple(name for name in names if name)
            targets = [(*names, alias.name) for alias in node.names] if len(names) == 1 else [names]
        elif isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        found |= {target[1] for target in targets if len(target) > 1 and target[0] == "jobdb"}
    return found


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = layer_of(path.relative_to(PACKAGE).with_suffix("").parts[0])
    for target in imported_modules(path) - {"schema", "__version__"}:
        assert target != "cli", f"{path.name} imports the command line"
        if (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").exists():
            assert layer_of(target) <= own, f"{path.name} imports jobdb.{target}, which is above it"


def test_the_pure_parts_touch_nothing() -> None:
    touching = {"os", "time", "socket", "sqlite3", "apsw", "pathlib", "subprocess", "random", "secrets"}
    pure = [*(PACKAGE / "protocol").glob("*.py"), PACKAGE / "replay.py", PACKAGE / "lifecycle.py"]
    for path in pure:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not touching & {name.split(".")[0] for name in names}, path.name


@pytest.mark.parametrize(
    "code", ["import jobdb", "import jobdb.cli, sys; sys.argv = ['jobdb', '--help']; jobdb.cli.main()"]
)
def test_heavy_packages_stay_out(code: str) -> None:
    check = (
        "import atexit, sys\n"
        f"heavy = {HEAVY!r}\n"
        "atexit.register(lambda: print('HEAVY', [n for n in heavy if n in sys.modules], file=sys.stderr))\n" + code
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert "HEAVY []" in done.stderr
