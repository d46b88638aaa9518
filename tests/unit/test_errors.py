"""Test every error class: it can be copied and pickled, and its docstring says when it is raised."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import jobdb
from jobdb import Busy, InvalidInput, JobdbError, Refused, UnknownJob

ARGUMENTS: dict[str, dict[str, Any]] = {
    "UnknownJob": {"job_id": "abc"},
    "UnknownQuestion": {"job_id": "abc", "key": "k"},
    "NoSuchJob": {"job_id": "abc"},
    "Busy": {"message": "it is locked", "waited_sec": 1.5, "holder": "process 7", "advice": "wait"},
}
USUAL = {"message": "it cannot be done", "advice": "call get()", "command": "run 'jobdb show'"}


def classes(base: type[JobdbError] = JobdbError) -> Iterator[type[JobdbError]]:
    yield base
    for found in base.__subclasses__():
        yield from classes(found)


for _module in pkgutil.walk_packages(jobdb.__path__, "jobdb."):
    if not _module.name.endswith("__main__"):
        try:
            importlib.import_module(_module.name)
        except ImportError:  # defined by an optional package
            continue

ERRORS = sorted({found for found in classes() if found.__module__.startswith("jobdb.")}, key=lambda each: each.__name__)


def make_error(kind: type[JobdbError]) -> JobdbError:
    return kind(**ARGUMENTS.get(kind.__name__, USUAL))


def test_every_error_class_is_found() -> None:
    assert {"Busy", "KeyProblem", "NoSuchJob", "RolledBack", "UnknownJob"} <= {kind.__name__ for kind in ERRORS}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, *(lambda error, n=n: pickle.loads(pickle.dumps(error, n)) for n in range(6))],
)
def test_an_error_survives_copying_and_pickling(kind: type[JobdbError], again: Callable[[Any], Any]) -> None:
    error = make_error(kind)
    error.add_note("seen on host1")
    other = again(error)
    assert type(other) is kind and other is not error
    assert (str(other), repr(other), other.args) == (str(error), repr(error), error.args)
    assert vars(other) == vars(error) and other.exit_code == error.exit_code
    assert other.for_command_line() == error.for_command_line()


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_the_docstring_says_when_it_is_raised(kind: type[JobdbError]) -> None:
    if kind is not JobdbError and kind.__module__ == "jobdb.errors":
        assert (inspect.cleandoc(kind.__doc__ or "")).startswith("Raised "), kind


def test_advice_is_in_the_words_of_the_library_or_of_the_command_line() -> None:
    error = Refused("job abc has ended", advice="see registry.get('abc')", command="see 'jobdb show abc'")
    assert str(error) == "job abc has ended; see registry.get('abc')"
    assert error.for_command_line() == "job abc has ended; see 'jobdb show abc'"
    assert str(Refused("no", advice="ask")) == Refused("no", advice="ask").for_command_line() == "no; ask"
    assert str(Refused("no", command="ask")) == "no" and Refused("no", command="ask").for_command_line() == "no; ask"
    unknown = UnknownJob("abc")
    assert "jobdb list" in unknown.for_command_line() and "jobdb list" not in str(unknown)
    busy = Busy("it is locked", waited_sec=2.0, advice="wait", command="wait with --busy-timeout")
    assert (busy.waited_sec, busy.holder, str(busy)) == (2.0, None, "it is locked; wait")
    assert isinstance(InvalidInput("x"), ValueError)
