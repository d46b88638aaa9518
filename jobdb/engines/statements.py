"""Named SQL statements: each .sql file is one immutable set whose names a type checker knows.

Used by every module that declares or executes named SQL: the verbs, the dialect of PostgreSQL, both transactions, and
the tools above the registry. Reads ``.sql`` files; never touches a database.

A file is a sequence of statements, each under a line ``-- name: what it is for``. Parameters are written ``:name``. A
subclass of :class:`StatementSet` declares the names; a test checks that file and declaration agree. Prior art: aiosql
and procrastinate also keep named SQL in files, but find a misspelled name only when it is executed.

A transaction takes a :class:`Statement`, not a name, so that nothing has to be registered with a store before use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

_PARAMETER = r"(?<![:\w]):([a-z][a-z0-9_]*)"

Binder = Callable[[Mapping[str, Any]], tuple[Any, ...]]


class Statement:
    """One SQL statement.

    Attributes:
        name: its name in its file.
        text: its SQL, with parameters as ``:name``.
    """

    __slots__ = ("name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    def __repr__(self) -> str:
        return f"<Statement {self.name}>"


class StatementSet:
    """The statements of one .sql file, as attributes. The file is read when the first of them is used.

    Args:
        file: the .sql file.

    Example:
        class ClaimStatements(StatementSet):
            claim_job: Statement

        CLAIMS = ClaimStatements(Path(__file__).with_name("claims.sql"))
        tx.one(CLAIMS.claim_job, job_id=…)
    """

    def __init__(self, file: Path) -> None:
        self.__dict__["file"] = file

    if not TYPE_CHECKING:  # a type checker must see the declared names only

        def __getattr__(self, name: str) -> Statement:
            if name.startswith("_") or name == "file":
                raise AttributeError(name)
            found = self.load()
            if name not in found:
                raise AttributeError(f"{self.__dict__['file'].name} has no statement {name}")
            return found[name]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a set of statements is immutable; {name} cannot be set")

    def __getitem__(self, name: str) -> Statement:
        """Return a statement by a computed name, for families of names such as ``copy_read_<table>``."""
        found = getattr(self, name)
        assert isinstance(found, Statement)
        return found

    def __iter__(self) -> Iterator[Statement]:
        return iter(self.load().values())

    def load(self) -> dict[str, Statement]:
        """Read the file if it has not been read yet; return its statements by name."""
        namespace = self.__dict__
        found: dict[str, Statement] | None = namespace.get("_statements")
        if found is None:
            found = {name: Statement(name, text) for name, text in read_statements(namespace["file"]).items()}
            found = namespace.setdefault("_statements", found)  # another thread may have been faster
            namespace.update(found)
        return found


def read_statements(path: Path) -> dict[str, str]:
    """Return the text of each statement in one file, by name.

    Raises:
        ValueError: two statements have one name.
    """
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("--"):
            name, colon, _purpose = line[3:].partition(":")
            # In a comment that is not a heading, the text before the first colon contains spaces.
            if colon and name.isidentifier():
                if name in found:
                    raise ValueError(f"{path.name}: two statements are named {name}")
                lines = found[name] = []
        elif lines is not None:
            lines.append(line.rstrip())
    return {name: "\n".join(body).strip().rstrip(";") for name, body in found.items()}


def parameters(text: str) -> Iterable[str]:
    """Return the names of a statement's parameters, in order of appearance."""
    return dict.fromkeys(re.findall(_PARAMETER, text))


def psycopg_text(text: str) -> str:
    """Return a statement in psycopg's parameter style."""
    return re.sub(_PARAMETER, r"%(\1)s", text.replace("%", "%%"))


class PositionalForms(dict[Statement, tuple[str, Binder]]):
    """The text of each statement, and the function that returns its parameters as a tuple, in SQLite's order.

    Binding by position spares SQLite's driver a lookup by name for each parameter of each execution.
    """

    def __missing__(self, statement: Statement) -> tuple[str, Binder]:
        self[statement] = found = (statement.text, _binder(tuple(parameters(statement.text))))
        return found


POSITIONAL = PositionalForms()
"""The form of every statement that this process has executed on SQLite."""


def _binder(names: tuple[str, ...]) -> Binder:
    if not names:
        return lambda given: ()
    if len(names) == 1:
        return lambda given: (given[names[0]],)
    return itemgetter(*names)
