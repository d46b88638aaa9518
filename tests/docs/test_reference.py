"""The reference is what the code says, and the whole site builds without a warning."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def generator(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["generate_library_reference", "generate_schema_reference"])
def test_the_page_is_what_would_be_written(name: str) -> None:
    module = generator(name)
    assert module.PAGE.read_text("utf-8") == module.page(), f"run: python docs/{name}.py"


def test_the_library_reference_has_every_public_name() -> None:
    import jobdb

    page = generator("generate_library_reference").page()
    for name in jobdb.__all__:
        assert f"### {name}\n" in page or f"## {name}\n" in page or f"| `{name}` |" in page, name
    for name, member in vars(jobdb.Registry).items():
        if not name.startswith("_") and callable(member):
            assert f".{name}\n" in page, name
    assert " object at 0x" not in page


def test_the_schema_reference_shows_every_table_and_reference() -> None:
    page = generator("generate_schema_reference").page()
    for table in ("jobs", "specs", "tokens", "events", "outbox", "subscriptions", "gaps", "refusals", "settings"):
        assert f"### {table}\n" in page and f"    {table} {{" in page
    assert "    jobs ||--o{ events : job" in page and "    jobs ||--o| specs : job" in page


def test_the_views_are_documented_with_all_their_columns() -> None:
    import re
    import sqlite3

    from jobdb.schema import migration_files

    connection = sqlite3.connect(":memory:")
    for _number, _name, path in migration_files("sqlite"):
        connection.executescript(path.read_text("utf-8"))
    documented = dict(
        re.findall(r"^\| `(v_\w+)` \| [^|]* \| ([^|]*) \|$", (ROOT / "docs/reference/views.md").read_text(), re.M)
    )
    views = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'v\\_%' ESCAPE '\\'")
    ]
    assert set(documented) == set(views)
    for view in views:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({view})")]
        assert documented[view].split(", ") == columns, view
    connection.close()


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("material") is None:
        if os.environ.get("JOBDB_REQUIRE_ALL") == "1":
            pytest.fail("JOBDB_REQUIRE_ALL=1, and mkdocs-material is not installed")
        pytest.skip("mkdocs-material is not installed: pip install 'jobdb[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    pages = {path.name for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "tutorial.html", "library.html", "schema.html", "command-line.html"} <= pages
    assert (tmp_path / "site/schema/vectors.json").exists() and "vectors.json" in (
        tmp_path / "site/job-protocol.html"
    ).read_text("utf-8")
