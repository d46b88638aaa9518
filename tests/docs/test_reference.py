"""Test that the reference is generated from the current code, and that the site builds without a warning."""

from __future__ import annotations

import inspect
import os
import re
import sqlite3
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.paths import ROOT
from tests.support.requirements import require_module
from tests.support.scripts import load_script


def generator(name: str) -> ModuleType:
    return load_script(ROOT / "docs" / f"{name}.py")


@pytest.mark.parametrize("name", ["generate_library_reference", "generate_schema_reference"])
def test_the_page_is_up_to_date(name: str) -> None:
    module = generator(name)
    assert module.PAGE.read_text("utf-8") == module.page(), f"run: python docs/{name}.py"


def test_the_library_reference_has_every_public_name() -> None:
    import jobdb

    page = generator("generate_library_reference").page()
    for name in jobdb.__all__:
        assert f"### {name}\n" in page or f"## {name}\n" in page or f"| `{name}` |" in page, name
    for name, member in inspect.getmembers(jobdb.Registry, inspect.isroutine):
        if not name.startswith("_"):
            assert f".{name}\n" in page, name
            assert (inspect.getdoc(member) or "").partition("Example:\n")[2].split("\n")[0].strip() in page, name
    assert " object at 0x" not in page


def test_the_schema_reference_shows_every_table_and_reference() -> None:
    page = generator("generate_schema_reference").page()
    drawn = generator("generate_diagrams").schema()
    for table in ("jobs", "specs", "tokens", "events", "outbox", "subscriptions", "gaps", "refusals", "settings"):
        assert f"### {table}\n" in page and f">{table}</text>" in drawn
    assert "| `job` | INTEGER | → jobs.id |" in page and "schema.svg" in page


def test_the_diagrams_are_up_to_date() -> None:
    module = generator("generate_diagrams")
    for path, draw in module.DIAGRAMS.items():
        picture = path.read_text("utf-8")
        assert picture == draw(), "run: python docs/generate_diagrams.py"
        xml.dom.minidom.parseString(picture)
        assert f"]({path.name})" in path.with_suffix(".md").read_text("utf-8")
    for names in module.triggers().values():
        assert all(name in module.lifecycle() for name in names)


def test_the_schema_diagram_shows_how_many_rows_refer() -> None:
    module = generator("generate_diagrams")
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER PRIMARY KEY REFERENCES a (id));"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a (id), text TEXT)"
    )
    keys, references = module.read_schema(connection)
    connection.close()
    assert keys == {"a": [("id", "PK")], "b": [("a", "PK")], "c": [("id", "PK"), ("a", "FK")]}
    assert [tuple(one) for one in references] == [("b", "a", "a", True), ("c", "a", "a", False)]


def test_the_views_are_documented_with_all_their_columns() -> None:
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
    require_module("material", "jobdb[docs]")
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
    for path in (tmp_path / "site").rglob("*.html"):
        text = path.read_text("utf-8")
        assert "mermaid" not in text
        assert not re.findall(
            r'<(?:script|img|iframe)[^>]*src="?(?:https?:)?//|<link[^>]*rel="?stylesheet[^>]*//', text
        )
    assert (tmp_path / "site/explanation/lifecycle.svg").exists() and (tmp_path / "site/reference/schema.svg").exists()
    assert (tmp_path / "site/schema/vectors.json").exists() and "vectors.json" in (
        tmp_path / "site/job-protocol.html"
    ).read_text("utf-8")
