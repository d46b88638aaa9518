"""Loads named SQL statements from .sql files.

A file is a sequence of statements, each under a line ``-- name: what it is for``. Parameters are written ``:name``.
A later file replaces statements of an earlier one: that is how a dialect says what it does differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_HEADING = re.compile(r"^-- ([a-z][a-z0-9_]*): ?(.*)$")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z][a-z0-9_]*)")


def read_statements(path: Path) -> dict[str, str]:
    """The statements of one file by name."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in path.read_text("utf-8").splitlines():
        heading = _HEADING.match(line)
        if heading:
            name = heading[1]
            if name in found:
                raise ValueError(f"{path.name}: statement {name} stands there twice")
            lines = found[name] = []
        elif lines is not None and not line.startswith("--"):
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
    return {name: _PARAMETER.sub(r"%(\1)s", text.replace("%", "%%")) for name, text in statements.items()}


def parameters(statement: str) -> Iterable[str]:
    """The names of a statement's parameters, in order of appearance."""
    return dict.fromkeys(_PARAMETER.findall(statement))
