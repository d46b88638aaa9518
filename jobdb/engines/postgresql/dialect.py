"""PostgreSQL's own statements, those that replace a verb's of the same name, and the form in which each is sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ..statements import Statement, StatementSet, psycopg_text


class DialectStatements(StatementSet):
    """The statements of ``dialect.sql`` that PostgreSQL alone has; its other ones replace those of the same name."""

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
        notifies: whether somebody may be waiting for what it changes.
    """

    text: bytes
    notifies: bool


class PsycopgForms(dict[Statement, Form]):
    """The form of each statement that was executed; the dialect's where it has one of the same name."""

    def __missing__(self, statement: Statement) -> Form:
        text = DIALECT.load().get(statement.name, statement).text
        notifies = re.match(r"\s*(INSERT INTO|UPDATE) (jobs|events)\b", text) is not None
        self[statement] = found = Form(psycopg_text(text).encode(), notifies)
        return found


FORMS = PsycopgForms()
"""The form of every statement that this process has executed on PostgreSQL."""
