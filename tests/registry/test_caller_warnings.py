"""Test that a warning names the line outside of jobdb, whether it is given when opening or by a verb."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from jobdb import NewJob, Registry

TOKEN = "a token of forty-three characters or more, given"


def _warning_lines(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [Path(warning.filename).name for warning in caught]


def test_a_warning_on_opening_names_the_callers_file(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    Registry.open(database, create=True).close()
    database.chmod(0o644)

    assert _warning_lines(lambda: Registry.open(database).close()) == [Path(__file__).name]


@pytest.mark.parametrize("many", [False, True])
def test_a_warning_of_a_verb_names_the_callers_file(tmp_path: Path, many: bool) -> None:
    with Registry.open(tmp_path / "jobs.db", create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="first", auth_token=TOKEN)

        def register() -> None:
            if many:
                registry.register_many([NewJob(agent="a", prompt="p", job_id="second", auth_token=TOKEN)])
            else:
                registry.register(agent="a", prompt="p", job_id="second", auth_token=TOKEN)

        assert _warning_lines(register) == [Path(__file__).name]
