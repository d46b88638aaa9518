"""Test the environment of the processes that jobdb starts."""

from __future__ import annotations

import pytest

from jobdb.system.subprocess_env import SECRET_VARIABLES, absolute_path_entries, without_secrets


def test_secrets_are_removed_and_file_names_are_kept() -> None:
    kept = {"PATH": "/bin", "JOBDB_KEY_FILE": "/k", "PGPASSFILE": "/p", "MQTT_USERNAME": "me", "JOBDB_URL": "jobs.db"}
    assert without_secrets({**kept, **dict.fromkeys(SECRET_VARIABLES, "secret")}) == kept


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("postgresql://me:hush@db:5432/jobs", "postgresql://me@db:5432/jobs"),
        ("postgres://me:hu@sh:x@db/jobs?sslmode=require", "postgres://me@db/jobs?sslmode=require"),
        ("postgresql://db/jobs?user=me&password=hush", "postgresql://db/jobs?user=me"),
        ("postgresql://db/jobs?password=hush&user=me", "postgresql://db/jobs?user=me"),
        ("postgresql://db/jobs?PASSWORD=hush&sslpassword=hush", "postgresql://db/jobs"),
        ("postgresql://me@db/jobs", "postgresql://me@db/jobs"),
        ("postgresql://me:hush@db/jobs?options=-c%20x@y", "postgresql://me@db/jobs?options=-c%20x@y"),
        ("postgresql://me:hush@db/j@bs", "postgresql://me@db/j@bs"),
        ("postgresql://me:hu/sh@db/jobs", "postgresql://me@db/jobs"),
        ("postgresql:///jobs?host=/a@b", "postgresql:///jobs?host=/a@b"),
        ("PostgreSQL://me:hush@db/jobs", "PostgreSQL://me@db/jobs"),
        (" postgresql://me:hush@db/jobs", " postgresql://me@db/jobs"),
        ("sqlite:////a:b@c/jobs.db", "sqlite:////a:b@c/jobs.db"),
    ],
)
def test_only_the_password_is_removed_from_a_url(given: str, left: str) -> None:
    assert without_secrets({"JOBDB_URL": given}) == {"JOBDB_URL": left}


def test_programs_are_searched_only_in_absolute_folders() -> None:
    assert absolute_path_entries(":/usr/bin:.::bin:/bin:") == "/usr/bin:/bin"
