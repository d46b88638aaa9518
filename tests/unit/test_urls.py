"""Test database URLs: how they are parsed, and what is shown of them."""

from __future__ import annotations

import os

import pytest

from jobdb import InvalidInput
from jobdb.urls import parse_url

PASSWORD = "geheim"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@host/db",
        f"postgresql://me:{PASSWORD}@host:5432,other:5433/db",
        f"postgresql://me:ge@{PASSWORD}@host/db",
        f"postgresql://host/db?user=me&password={PASSWORD}",
        f"postgresql://host:5432/db?password=p@{PASSWORD}",
        f"postgresql://host:5432/db?sslpassword=p@:{PASSWORD}&user=me",
        f"postgres://me:{PASSWORD}@/db?host=/run&application_name=a@b",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    place = parse_url(url)
    assert place.text == url
    for shown in (str(place), repr(place), f"{place}"):
        assert PASSWORD not in shown and shown.startswith("postgres")


@pytest.mark.parametrize(
    "url", [f"postgresql:/me:{PASSWORD}@host/db", f"postgres:me:{PASSWORD}@host/db", "sqlite:/jobs.db"]
)
def test_a_url_with_too_few_slashes_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInput, match="two slashes") as caught:
        parse_url(url)
    assert PASSWORD not in str(caught.value)


def test_file_names_and_file_urls() -> None:
    assert str(parse_url("jobs.db").path) == "jobs.db"
    assert str(parse_url("/var/jobs.db").path) == "/var/jobs.db"
    assert str(parse_url("sqlite:///jobs.db").path) == "jobs.db"
    assert str(parse_url("sqlite:////var/jobs.db").path) == "/var/jobs.db"
    for url in ("mysql://h/db", "sqlite://", "sqlite:///", ""):
        with pytest.raises(InvalidInput):
            parse_url(url)


def test_a_name_that_sqlite_cannot_open_is_refused_before_a_file_is_created(tmp_path, monkeypatch) -> None:
    with pytest.raises(InvalidInput, match="not valid UTF-8"):
        parse_url(os.fsdecode(b"\xff.db"))
    with pytest.raises(InvalidInput, match="not valid UTF-8"):
        parse_url("\ud800.db")
    folder = os.path.join(os.fsencode(tmp_path), b"\xff")
    os.mkdir(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(InvalidInput, match="not valid UTF-8"):
        parse_url("jobs.db")
    assert parse_url(tmp_path / "jobs.db").path == tmp_path / "jobs.db" and os.listdir(folder) == []
