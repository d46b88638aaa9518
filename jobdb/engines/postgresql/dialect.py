"""The dialect: PostgreSQL's own statements, its replacements for others, and the form in which statements are sent.

Used by the store, its transactions, commits and queries, and on opening. Reads ``dialect.sql``; never touches a
connection.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ..statements import Statement, StatementSet, psycopg_text


class DialectStatements(StatementSet):
    """The statements of ``dialect.sql`` that only PostgreSQL has; the others there replace those of the same name."""

    lock_jobs: Statement
    now_ms: Statement
    mark_writer: Statement
    writer_is_active: Statement
    last_commit: Statement
    delete_writers: Statement
    notify_commit: Statement
    channel: Statement
    stable_event_id: Statement
    set_query_timeout: Statement
    query_rule: Statement
    query_relations: Statement
    query_functions: Statement


DIALECT = DialectStatements(Path(__file__).with_name("dialect.sql"))


class Form(NamedTuple):
    """A statement as it is sent to the server.

    Attributes:
        text: its SQL in psycopg's parameter style.
        notifies: somebody may be waiting for the change that it makes.
    """

    text: bytes
    notifies: bool


class PsycopgForms(dict[Statement, Form]):
    """The form of each statement that was executed; that of the dialect's statement if one has the same name."""

    def __missing__(self, statement: Statement) -> Form:
        text = DIALECT.load().get(statement.name, statement).text
        notifies = re.match(r"\s*(INSERT INTO|UPDATE) (jobs|events|questions)\b", text) is not None
        self[statement] = found = Form(psycopg_text(text).encode(), notifies)
        return found


FORMS = PsycopgForms()
"""The form of every statement that this process has executed on PostgreSQL."""
