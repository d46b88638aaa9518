"""Loads named SQL statements from .sql files.

A file is a sequence of statements, each under a line ``-- name: what it is for``. Parameters are written ``:name``.
A later file replaces statements of an earlier one: that is how a dialect says what it does differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

_VERBS = ("jobs.sql", "claims.sql", "events.sql", "accept.sql", "tokens.sql")

VERB_FILES = tuple(Path(__file__).parent / "sql" / name for name in _VERBS)
"""The statements of the verbs, for every SQL database; a dialect's file comes after them."""

_PARAMETER = r"(?<![:\w]):([a-z][a-z0-9_]*)"


def read_statements(path: Path) -> dict[str, str]:
    """The statements of one file by name."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("--"):
            name, colon, _purpose = line[3:].partition(":")
            # A comment that is no heading has blanks before its first colon.
            if colon and name.isidentifier():
                if name in found:
                    raise ValueError(f"{path.name}: statement {name} stands there twice")
                lines = found[name] = []
        elif lines is not None:
            lines.append(line.rstrip())
    return {name: "\n".join(body).strip().rstrip(";") for name, body in found.items()}


@cache
def load_statements(*paths: Path) -> dict[str, str]:
    """The statements of several files, the later ones replacing the earlier ones'."""
    merged: dict[str, str] = {}
    for path in paths:
        merged.update(read_statements(path))
    return merged


def for_psycopg(statements: dict[str, str]) -> dict[str, str]:
    """The same statements with psycopg's parameter style."""
    import re

    return {name: re.sub(_PARAMETER, r"%(\1)s", text.replace("%", "%%")) for name, text in statements.items()}


class PositionalStatements(dict[str, tuple[str, Callable[[Mapping[str, Any]], tuple[Any, ...]]]]):
    """Each statement with what makes a tuple of its parameters, in the order in which SQLite numbers them.

    Binding by position spares SQLite's driver a look-up by name for each parameter of each execution.
    """

    def __init__(self, statements: Mapping[str, str]) -> None:
        super().__init__()
        self._texts = dict(statements)

    def add(self, statements: Mapping[str, str]) -> None:
        """Adds statements; those that are there already stay as they are."""
        self._texts = {**statements, **self._texts}

    def __missing__(self, name: str) -> tuple[str, Callable[[Mapping[str, Any]], tuple[Any, ...]]]:
        text = self._texts[name]
        self[name] = found = (text, _values(tuple(parameters(text))))
        return found


def _values(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if not names:
        return lambda given: ()
    if len(names) == 1:
        return lambda given: (given[names[0]],)
    return itemgetter(*names)


def parameters(statement: str) -> Iterable[str]:
    """The names of a statement's parameters, in order of appearance."""
    import re

    return dict.fromkeys(re.findall(_PARAMETER, statement))
