"""The public face: sorted, complete, documented."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Literal, get_origin

import jobdb
import jobdb.model.literals
from jobdb import errors, model
from jobdb.engines.base import Engine
from jobdb.engines.sql.engine import SqlEngine


def test_all_is_sorted_and_complete() -> None:
    assert jobdb.__all__ == sorted(jobdb.__all__, key=lambda name: (name.lower(), name)) or jobdb.__all__ == sorted(
        jobdb.__all__
    )
    public_errors = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert public_errors <= set(jobdb.__all__)


def test_every_public_thing_is_documented() -> None:
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


def test_the_error_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.JobdbError):
            assert name in drawn


def test_the_engine_has_every_verb_of_the_interface_and_a_sentence_for_each() -> None:
    verbs = [name for name, value in vars(Engine).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert len(verbs) > 25
    for verb in verbs:
        wanted, offered = getattr(Engine, verb), getattr(SqlEngine, verb)
        assert inspect.getdoc(wanted)
        assert list(inspect.signature(wanted).parameters) == list(inspect.signature(offered).parameters), verb
