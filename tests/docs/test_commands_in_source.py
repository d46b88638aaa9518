"""Test the commands named in messages, advice, help and comments: each `jobdb …` must be valid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.commands import command_names, parse_commands, usage_error
from tests.support.paths import ROOT

PYTHON = [path for folder in ("jobdb", "cli", "schema") for path in sorted((ROOT / folder).rglob("*.py"))]
OTHERS = [
    path
    for folder in ("jobdb", "cli", "schema")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".sql", ".html", ".css", ".js", ".json") and path.name != "vectors.json"
]

# Words that follow the program's name in prose; no command has such a name.
_PROSE = frozenset(
    [
        *("is", "needs", "knows", "works", "has", "does", "raises", "error", "gate", "master", "database", "databases"),
        *("migrations", "query", "reads", "in", "and", "with", "to", "made", "job", "master-key"),
    ]
)
_QUOTED = re.compile(r"(?:'|``?)(jobdb(?: [^'`]*)?)(?:'|``?)")
_BARE = re.compile(r"(?<![\w/.'`@=\[:-])jobdb (?P<rest>[^'`\n]*)")
_END = re.compile(r"[;,.:)]? (?:and|or|to|then|after|prints|gives|for|in|on|with)\b.*|[;,)].*|\. .*|[.:]$")


def string_literals(path: Path) -> Iterator[str]:
    """Yield all strings of a module; a value in an f-string becomes X, a command's prefix jobdb."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(_part(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return "jobdb" if ast.unparse(part.value).endswith("command") else "X"


def commands(text: str) -> Iterator[tuple[str, list[str], bool]]:
    """Yield each command in a text, its words, and whether it is to be run as written."""
    for quoted in _QUOTED.findall(text):
        for words in parse_commands(quoted.replace("\n", " ")):
            if words[:1] != ["migrations"]:  # the name of a lock
                yield quoted, words, _has_arguments(words)
    names = command_names()
    for line in _QUOTED.sub("", text).splitlines():
        example = line.startswith("      ") and re.search(r"(?:^\s+|[(|] *|\w+=\$\()jobdb ", line)
        if example:
            for words in parse_commands(line.replace("$(jobdb", "; jobdb")):
                yield line, words, True
            continue
        for match in _BARE.finditer(line):
            rest = match["rest"]
            first = rest.split()[0].strip(".,;:)") if rest.split() else ""
            if first in names and (first not in _PROSE or "--" in rest):
                said = _END.sub("", rest)
                words = next(parse_commands(f"jobdb {said}"), [])
                yield match[0], words, _has_arguments(words)
            elif first and first not in _PROSE and re.fullmatch(r"[a-z][a-z-]+", first):
                yield match[0], [first], False


def _has_arguments(words: list[str]) -> bool:
    """Return whether a command has its arguments and is not only named, as `jobdb token show`."""
    return (
        bool(words)
        and not words[0].startswith("-")
        and any(word.startswith("-") or not re.fullmatch(r"[a-z]+", word) for word in words)
    )


def found(path: Path) -> list[tuple[str, list[str], bool]]:
    said = string_literals(path) if path.suffix == ".py" else iter([path.read_text("utf-8")])
    return [one for text in said for one in commands(text)]


@pytest.mark.parametrize("path", PYTHON + OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_that_a_file_names_exist(path: Path) -> None:
    wrong = [
        f"{text!r}: {error}"
        for text, words, complete in found(path)
        if (error := usage_error(words, complete=complete))
    ]
    assert wrong == []


def test_commands_are_found() -> None:
    assert sum(len(found(path)) for path in PYTHON) > 150


def test_commands_that_do_not_exist_are_found() -> None:
    for text in ("run 'jobdb tokn show JOB'", "advice: jobdb restore --into FILE", "'jobdb token revoke JOB --kid 1'"):
        assert [usage_error(words, complete=complete) for _text, words, complete in commands(text)] != [None], text
    assert not list(commands("and this jobdb knows 3"))
