"""Test that every named statement of every .sql file is declared and accepted by each engine that runs it."""

import importlib
from pathlib import Path

import pytest

import jobdb
from jobdb.engines.postgresql.dialect import DIALECT
from jobdb.engines.statements import StatementSet, parameters, read_statements

ROOT = Path(jobdb.__file__).parent
SQLITE_ONLY = {
    "engines/postgresql/dialect.sql": "PostgreSQL's own; tried in place of the verbs'",
    "engines/postgresql/migrations.sql": "PostgreSQL's own; run by every migration",
    "mqtt/ticket_outbox.sql": "a ticket's own local file",
    "mqtt/ticket_store.sql": "the same file's tables",
    "ui/datasette_plugin.sql": "datasette reads a SQLite file",
    "operations/restored_file.sql": "a backup is a SQLite file; run by every test of restore",
    "operations/since_backup.sql": "a backup is a SQLite file; run by every test of restore",
}
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.sql"))
NO_PLAN = ("LOCK ", "SELECT pg_notify", "SELECT DISTINCT c.relname")


def sets() -> dict[str, StatementSet]:
    """Return every statement set of the package by its file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        if "StatementSet" in path.read_text("utf-8"):
            parts = path.relative_to(ROOT.parent).with_suffix("").parts
            for value in vars(importlib.import_module(".".join(parts))).values():
                if isinstance(value, StatementSet):
                    found[str(value.file.relative_to(ROOT))] = value
    return found


SETS = sets()


@pytest.mark.parametrize("file", [file for file in FILES if file not in SQLITE_ONLY])
def test_every_engine_accepts_every_statement(database, file):
    known = read_statements(ROOT / file)
    if database.name == "postgresql":
        overrides = read_statements(DIALECT.file)
        known = {name: overrides.get(name, text) for name, text in known.items()}
    failures = []
    for name, text in known.items():
        if text.startswith(NO_PLAN):
            continue
        try:
            database.plan(text, dict.fromkeys(parameters(text)))
        except Exception as error:
            failures.append(f"{name}: {error}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("file", FILES)
def test_a_set_declares_the_names_of_its_file(file):
    if file == "ui/datasette_plugin.sql":
        assert file not in SETS, "datasette runs every query of the file"
        return
    declared = list(type(SETS[file]).__annotations__)
    replaced = {name for other in FILES if other != file for name in read_statements(ROOT / other)}
    names = [name for name in read_statements(ROOT / file) if SETS[file] is not DIALECT or name not in replaced]
    assert declared == names


def test_no_two_sets_share_a_statement_name():
    """The dialect replaces statements by name, so no two sets that run on PostgreSQL may share one by accident."""
    shared: dict[str, list[str]] = {}
    for file in FILES:
        if file not in SQLITE_ONLY:
            for name in read_statements(ROOT / file):
                shared.setdefault(name, []).append(file)
    assert {name: files for name, files in shared.items() if len(files) > 1} == {}


def test_a_set_is_immutable_and_names_a_missing_statement(tmp_path):
    file = tmp_path / "few.sql"
    file.write_text("-- one: the only one\nSELECT :a, :b;\n")
    few = StatementSet(file)
    assert few["one"].text == "SELECT :a, :b" and few["one"] is few["one"]
    with pytest.raises(AttributeError, match=r"few\.sql has no statement two"):
        few["two"]
    with pytest.raises(AttributeError, match="immutable"):
        few.one = few["one"]
