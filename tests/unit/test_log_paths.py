"""Test the paths of log files: different attempts have different ones, whatever their job is called."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobdb.core.log_paths import MAX_NAME_BYTES, folder_name, log_path
from jobdb.core.protocol import JOB_ID_PATTERN

JOB_IDS = st.from_regex(JOB_ID_PATTERN, fullmatch=True)
NASTY = st.text(st.sampled_from([*"aB%./-:2E\0\n é日", "\ud800", "💥"]), max_size=250)
ANY_TEXT = st.one_of(JOB_IDS, NASTY, st.text(st.characters(), max_size=300))


@given(JOB_IDS)
def test_a_job_id_is_its_own_folder_name(job_id: str) -> None:
    assert log_path("/logs", job_id, 3) == f"/logs/{job_id}/3.log"


@given(ANY_TEXT)
@example("")
@example("..")
@example("a/../b")
@example("x" * 201)
def test_a_folder_name_is_one_safe_component(text: str) -> None:
    name = folder_name(text)
    assert 1 <= len(os.fsencode(name)) <= MAX_NAME_BYTES
    assert name.isascii() and name.isprintable() and "/" not in name and not name.startswith(".")


@given(ANY_TEXT, st.integers(0, 2**53), ANY_TEXT, st.integers(0, 2**53))
def test_different_attempts_have_different_paths(one: str, first: int, other: str, second: int) -> None:
    assert (log_path("/logs", one, first) == log_path("/logs", other, second)) == ((one, first) == (other, second))


@given(ANY_TEXT)
def test_a_name_is_not_the_name_of_the_text_that_it_looks_like(text: str) -> None:
    name = folder_name(text)
    assert name == text or folder_name(name) != name


@pytest.mark.parametrize("long", ["é" * 128, "a" * 250, "/" * 128])
def test_what_is_cut_differs_by_its_digest(long: str) -> None:
    name, other = folder_name(long), folder_name(long + "x")
    assert name != other and name[:130] == other[:130] and len(name) == MAX_NAME_BYTES


@pytest.mark.parametrize(
    ("log_dir", "path"), [("/", "/a/1.log"), ("/logs/", "/logs/a/1.log"), ("/logs", "/logs/a/1.log")]
)
def test_slashes_at_the_end_of_the_folder_do_not_matter(log_dir: str, path: str) -> None:
    assert log_path(log_dir, "a", 1) == path
