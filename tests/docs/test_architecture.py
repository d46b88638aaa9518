"""ARCHITECTURE.md, CONTRIBUTING.md and the glossary agree with the repository: paths, names, terms and the picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_reference import generator
from tests.support.paths import ROOT

PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md")

_BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"`<!--.*?-->`", re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_PATH = re.compile(r"[\w.-]*/[\w./-]*|[\w-]+\.(?:py|sql|md|toml|json|svg|yml)")
_PLACEHOLDER = re.compile(r"\bNAME\b|NNNN")
_NAME = re.compile(r"\b[A-Za-z]\w*_\w+|\b[A-Z][a-z]+[A-Z]\w+")
_START = re.compile(r"\n(?= *(?:\||[-*] |\d+\. )|\s*\n)")


def passages(text: str) -> Iterator[str]:
    """Yield the paragraphs, list items and table rows of a page, without its blocks."""
    yield from _START.split(_BLOCK.sub("", _COMMENT.sub("", text)))


def paths(passage: str) -> list[str]:
    """Return the paths that a passage names, also those within a command."""
    words = [word for code in _CODE.findall(passage) for word in re.split(r"[\s=]+", code)]
    return [word for word in words if _PATH.fullmatch(word) and not _PLACEHOLDER.search(word)]


def missing_paths(passage: str) -> list[str]:
    """Return the paths that do not exist.

    A path begins at the top of the repository or in ``jobdb/``. In a passage that has named a path, it may also begin
    in that folder, or in the folder of that file.
    """
    folders, missing = [ROOT, ROOT / "jobdb"], []
    for path in paths(passage):
        found = next((folder / path for folder in folders if (folder / path).exists()), None)
        if found is None or (path.endswith("/") and not found.is_dir()):
            missing.append(path)
        else:
            folders.append(found if found.is_dir() else found.parent)
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_the_paths_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = [path for passage in passages(text) for path in paths(passage)]
    assert len(named) > 30
    assert [path for passage in passages(text) for path in missing_paths(passage)] == []


def test_a_missing_path_is_found() -> None:
    wrong = (
        "see `jobdb/engines/shop.py`, `store.py`; `jobdb/engines/` has `sql/` and `store.py`, and `urls.py/` is a file"
    )
    assert missing_paths(wrong) == ["jobdb/engines/shop.py", "store.py", "urls.py/"]
    assert missing_paths("run `python docs/generate_nothing.py`") == ["docs/generate_nothing.py"]
    rows = list(passages("a\n\n| `jobdb/` | b |\n| `urls.py` | c |\n\n- d\n  e\n- f\n1. g\n"))
    assert [row.strip() for row in rows if row.strip()] == [
        "a",
        "| `jobdb/` | b |",
        "| `urls.py` | c |",
        "- d\n  e",
        "- f",
        "1. g",
    ]


def sources() -> Iterator[Path]:
    """Yield the files in which a name may be defined."""
    yield from (ROOT / "pyproject.toml", ROOT / "Makefile")
    for folder in ("jobdb", "cli", "schema", "tests"):
        for pattern in ("*.py", "*.sql"):
            yield from (path for path in (ROOT / folder).rglob(pattern) if path != Path(__file__))


@pytest.mark.parametrize("page", PAGES)
def test_the_names_that_a_page_mentions_are_in_the_code(page: str) -> None:
    text = " ".join(passages((ROOT / page).read_text("utf-8")))
    names = {name for code in _CODE.findall(text) if not _PLACEHOLDER.search(code) for name in _NAME.findall(code)}
    words = {word for path in sources() for word in re.findall(r"\w+", f"{path.stem} {path.read_text('utf-8')}")}
    assert len(names) > 5
    assert sorted(names - words) == []


def test_the_code_map_has_every_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    for path in sorted((ROOT / "jobdb").iterdir()):
        left_by_a_checkout = path.is_dir() and not any(path.rglob("*.py"))  # of an older commit: only bytecode
        if path.name not in ("__init__.py", "py.typed") and not left_by_a_checkout:
            assert f"`jobdb/{path.name}{'/' if path.is_dir() else ''}`" in text, path.name


def glossary_terms() -> list[str]:
    """Return the terms that have a row of their own in the glossary."""
    rows = re.findall(r"^\| (\*\*.*?) \|", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE)
    return [term for row in rows for term in re.findall(r"\*\*(.+?)\*\*", row)]


def test_the_glossary_defines_each_term_once() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    in_tables = [
        term for line in text.splitlines() if line.startswith("|") for term in re.findall(r"\*\*(.+?)\*\*", line)
    ]
    assert len(glossary_terms()) > 50
    assert [term for term, count in Counter(map(str.lower, in_tables)).items() if count > 1] == []


def test_the_picture_of_the_floors_is_what_would_be_drawn() -> None:
    module = generator("generate_floors")
    is_current = module.PICTURE.read_text("utf-8") == module.draw()
    assert is_current, "run: python docs/generate_floors.py"  # without pytest's comparison, which takes a minute here
    assert f"]({module.PICTURE.relative_to(ROOT)})" in (ROOT / "ARCHITECTURE.md").read_text("utf-8")
