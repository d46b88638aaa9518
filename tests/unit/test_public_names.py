"""Test the public names: sorted, complete, documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Literal, get_origin

import jobdb
import jobdb.model.literals
from jobdb import errors, model
from jobdb.engines.sql.engine import Engine
from jobdb.engines.verbs import verb, verbs_of, with_verbs


def test_all_is_sorted_and_complete() -> None:
    assert jobdb.__all__ == sorted(jobdb.__all__, key=lambda name: (name.lower(), name)) or jobdb.__all__ == sorted(
        jobdb.__all__
    )
    public_errors = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert public_errors <= set(jobdb.__all__)


def test_every_public_name_is_documented() -> None:
    literals = Path(model.literals.__file__ or "").read_text("utf-8")
    for name in jobdb.__all__:
        thing = getattr(jobdb, name)
        if get_origin(thing) is Literal:
            assert re.search(rf'^{name} = Literal\[.*\]\n"""\w', literals, re.MULTILINE), name
            continue
        assert inspect.getdoc(thing), name
        if name == "Registry":
            for verb, method in inspect.getmembers(thing, inspect.isfunction):
                assert verb.startswith("_") or inspect.getdoc(method), verb


def test_the_error_tree_in_the_docstring_is_current() -> None:
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.JobdbError):
            assert name in drawn


def test_every_verb_of_the_engine_is_marked_and_documented() -> None:
    public = [name for name, value in inspect.getmembers(Engine, inspect.isfunction) if not name.startswith("_")]
    verbs = verbs_of(Engine)
    assert len(verbs) > 25 and sorted([*verbs, "close"]) == sorted(public)
    for name, function in verbs.items():
        assert inspect.getdoc(function), name


def test_only_verbs_are_wrapped() -> None:
    class Plain:
        @verb
        def first(self) -> str:
            return "first"

        @verb
        def second(self) -> str:
            return self.helper() + self.first()

        def helper(self) -> str:
            return "helped "

    marked = Plain.__dict__["first"]
    assert marked(Plain()) == "first" and verb(marked) is marked  # the mark is the only cost of a verb
    once = with_verbs(Plain, lambda name, run: lambda self: f"<{name} {run(self)}>")
    assert once().second() == "<second helped <first first>>" and once().helper() == "helped "
    twice = with_verbs(once, lambda name, run: lambda self: run(self).upper())
    assert twice().first() == "<FIRST FIRST>" and list(verbs_of(twice)) == ["first", "second"]
    assert Plain().first() == "first"


def test_the_schema_version_is_the_number_of_the_last_migration() -> None:
    from jobdb.schema import SCHEMA_VERSION, migration_files

    for engine in ("sqlite", "postgresql"):
        assert [number for number, _name, _file in migration_files(engine)] == list(range(1, SCHEMA_VERSION + 1))
