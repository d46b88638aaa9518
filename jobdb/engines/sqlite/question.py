"""What a person's query may touch on SQLite: the registry's views and tables, but for the sealed columns; functions.

SQLite asks for each column that a statement reads, by whatever way, while it prepares it. What is not on these lists is
refused: tables that SQLite makes up (``dbstat``, and in some builds ``sqlite_dbpage``, the file's very bytes), samples
of columns (``sqlite_stat4``), pragmas, attached files, writes. Source: https://sqlite.org/c3ref/set_authorizer.html
"""

from __future__ import annotations

import apsw

VIEWS = frozenset({"v_jobs", "v_events", "v_subscriptions", "v_refusals", "v_verdicts"})
SEALED = frozenset({("tokens", "sealed"), ("specs", "broker_password")})
TABLES = VIEWS | {
    "jobs", "specs", "tokens", "events", "outbox", "subscriptions", "gaps", "feeds", "verdict_counts", "refusals",
    "leases", "settings", "imports", "import_lines", "job_records", "sqlite_master", "json_each", "json_tree",
}  # fmt: skip
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "rtreecheck", "sqlite_log"})


def authorize(operation: int, first: str | None, second: str | None, _database: str | None, through: str | None) -> int:
    """Answer SQLite's authorizer: reading what is on the lists is allowed, nothing else is.

    Args:
        operation: what a part of the statement would do.
        first: for a read the table, else as SQLite's documentation says.
        second: for a read the column, "" where only rows are counted; for a function its name.
        through: the view through which it comes, if any.
    """
    if operation == apsw.SQLITE_READ:
        listed = first in TABLES or through in VIEWS or not second  # a common table expression has any name
        return apsw.SQLITE_OK if listed and (first, second) not in SEALED else apsw.SQLITE_DENY
    if operation in (apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE):
        return apsw.SQLITE_OK
    if operation == apsw.SQLITE_FUNCTION and second not in _REFUSED_FUNCTIONS:
        return apsw.SQLITE_OK
    return apsw.SQLITE_DENY
