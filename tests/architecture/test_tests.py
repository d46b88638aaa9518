"""Test the rules for tests: one import path, one module that skips, one key, documented folders and variables."""

from __future__ import annotations

import ast
import importlib
import os
import re
from pathlib import Path

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.support.environment import TEST_VARIABLES, is_private
from tests.support.keys import MASTER_KEY
from tests.support.paths import ROOT, TESTS
from tests.support.requirements import require

README = (TESTS / "README.md").read_text("utf-8")
SOURCES = sorted(path for path in TESTS.rglob("*.py") if "typing" not in path.relative_to(TESTS).parts)
THIS = Path(__file__)
MAX_LINES = 500
SKIPS = {
    *("pytest.skip", "pytest.importorskip", "pytest.mark.skip", "pytest.mark.skipif", "unittest.skip"),
    *("pytest.xfail", "pytest.mark.xfail", "unittest.skipIf", "unittest.skipUnless", "unittest.expectedFailure"),
}


def name_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def names_in(path: Path) -> set[str]:
    """Return every name and attribute that a module uses or imports, such as ``pytest.skip``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute | ast.Name):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_no_import_path_is_changed() -> None:
    changed = re.compile(r"sys\.path(\[[^]]*\] *=|\.(insert|append|extend)\()")
    assert [name_of(path) for path in SOURCES if path != THIS and changed.search(path.read_text("utf-8"))] == []


def test_no_test_leaves_an_import_path_in_the_environment() -> None:
    changed = re.compile(r"environ\[.PYTHONPATH.\] *=|setenv\(.PYTHONPATH")
    writers = [name_of(path) for path in SOURCES if path != THIS and changed.search(path.read_text("utf-8"))]
    # The first tests the effect on jobdb; the second restores the variable.
    assert writers == ["legacy/test_legacy_reading.py", "support/processes.py"]


def test_only_one_module_skips_tests() -> None:
    allowed = {TESTS / "support" / "requirements.py"}
    assert [name_of(path) for path in SOURCES if path not in allowed and SKIPS & names_in(path)] == []
    allowed |= {TESTS / "conftest.py", TESTS / "support" / "environment.py", THIS}
    named = [path for path in SOURCES if "JOBDB_REQUIRE_ALL" in path.read_text("utf-8")]
    assert [name_of(path) for path in named if path not in allowed] == []


def test_files_have_one_subject() -> None:
    lengths = {name_of(path): path.read_text("utf-8").count("\n") for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_the_readme_names_every_folder_and_variable() -> None:
    folders = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert set(re.findall(r"^\| `([a-z_]+)` \|", README, re.MULTILINE)) == folders
    assert set(re.findall(r"^\| `(JOBDB_\w+)` \|", README, re.MULTILINE)) == TEST_VARIABLES


def test_the_makefile_names_files_that_exist() -> None:
    named = set(re.findall(r"tests/[\w/.]+", (ROOT / "Makefile").read_text("utf-8")))
    assert named and [name for name in named if not (ROOT / name).exists()] == []


def is_importable(module: str, name: str) -> bool:
    """Return whether ``from module import name`` works, or fails only because another package is not installed."""
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ImportError as error:
        return not (error.name or "jobdb").startswith("jobdb")
    return True


def test_imports_of_jobdb_exist_in_program_texts_too() -> None:
    """A program that a test starts from a string is checked by no linter, and it may run on few machines."""
    pattern = re.compile(r"from (jobdb[\w.]*) import (\w+(?:, \w+)*)")
    imports = {(name_of(path), *found) for path in SOURCES for found in pattern.findall(path.read_text("utf-8"))}
    assert ("support/twohosts/probe.py", "jobdb.filesystem.probe.peer", "probe_peer") in imports
    broken = [
        (file, module, name)
        for file, module, names in sorted(imports)
        for name in names.split(", ")
        if not is_importable(module, name)
    ]
    assert broken == []
    assert not is_importable("jobdb.filesystem.probe.local", "probe_peer")


def test_a_missing_requirement_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBDB_REQUIRE_ALL", raising=False)
    require(True, "there is no broker")
    with pytest.raises(Skipped, match="there is no broker"):
        require(False, "there is no broker")
    monkeypatch.setenv("JOBDB_REQUIRE_ALL", "1")
    with pytest.raises(Failed, match="there is no broker"):
        require(False, "there is no broker")


def test_tests_see_no_variable_of_the_user(clean_environment: Path) -> None:
    assert os.environ["HOME"] == str(clean_environment) and list(clean_environment.iterdir()) == []
    assert {name for name in os.environ if is_private(name)} == {"JOBDB_KEY"}
    assert os.environ["JOBDB_KEY"] == MASTER_KEY
