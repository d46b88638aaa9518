"""Every named statement of every .sql file is one that each engine takes, whoever uses it."""

from pathlib import Path

import pytest

import jobdb
from jobdb.engines.statements import load_statements, parameters

ROOT = Path(jobdb.__file__).parent
DIALECT = ROOT / "engines" / "postgresql" / "dialect.sql"
SQLITE_ONLY = {
    "mqtt/tickets.sql": "a ticket's own local file",
    "ui/site.sql": "datasette reads a SQLite file",
    "restoring.sql": "a backup is a SQLite file; run by every test of restore",
}
FOLDERS = (".", "doctor", "engines/sql", "legacy", "mqtt", "ui")
FILES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).glob("*.sql"))
FILES = [path for path in FILES if str(path) not in SQLITE_ONLY]
NO_PLAN = ("LOCK ", "SELECT pg_notify", "SELECT DISTINCT c.relname")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_statement_is_understood(database, file):
    known = load_statements(ROOT / file)
    if database.name == "postgresql":
        overrides = load_statements(DIALECT)
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


def test_the_dialect_replaces_only_what_there_is():
    files = [ROOT / file for file in FILES]
    own = {"lock_jobs", "now_ms", "mark_writer", "writer_at_work", "last_commit", "forget_writers"}
    own |= {"say_committed", "channel", "settled_event", "limit_question"}
    own |= {"tree_of_question", "relations_of_question", "functions_of_question"}
    assert set(load_statements(DIALECT)) - own <= set(load_statements(*files))
