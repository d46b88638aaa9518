"""Generates docs/reference/schema.md from the schema that the migrations create.

Run ``python docs/generate_schema_reference.py``; a test checks that the page is up to date.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from jobdb.schema import SCHEMA_VERSION, migration_files

PAGE = Path(__file__).parent / "reference" / "schema.md"
_TABLE = re.compile(r"((?:^--[^\n]*\n)*)^CREATE (?:TABLE|VIEW) (\w+)[^\n]*\n(.*?);$", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"^    (\w+) +[A-Z]+\b[^\n]*?-- ([^\n]*)$", re.MULTILINE)

HEAD = """\
# The schema

<!-- Made by docs/generate_schema_reference.py from the migrations in schema/. Change them there. -->

Schema version {version}, as the migrations in `schema/sqlite/` create it; those in `schema/postgresql/` create the
same tables under the same numbers. For your own queries use the [views](views.md), which are stable: tables may change
with a version. Times are Unix milliseconds (`…_ms`). `job` is always `jobs.id`; the public id is `jobs.job_id`. Columns
named `sealed` hold AES-256-GCM ciphertext that is bound to its row.
"""


def page() -> str:
    """Return the whole page."""
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    try:
        table_comments: dict[str, str] = {}
        column_comments: dict[str, dict[str, str]] = {}
        for _number, _name, path in migration_files("sqlite"):
            script = path.read_text("utf-8")
            connection.executescript(script)
            for comment, table, body in _TABLE.findall(script):
                table_comments[table] = " ".join(line.removeprefix("-- ") for line in comment.splitlines())
                column_comments[table] = dict(_COLUMN.findall(body))
        return "\n".join(_parts(connection, table_comments, column_comments))
    finally:
        connection.close()


def _parts(
    connection: sqlite3.Connection, table_comments: dict[str, str], column_comments: dict[str, dict[str, str]]
) -> Iterator[str]:
    tables = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
    ]
    yield HEAD.format(version=SCHEMA_VERSION)
    yield "## Diagram\n"
    yield "Each table with its keys. A crow's foot: many rows may refer to one; a bar: at most one.\n"
    yield "![The tables and their references](schema.svg)\n"
    yield "## Tables\n"
    for table in tables:
        yield f"### {table}\n"
        if table_comments.get(table):
            yield table_comments[table] + "\n"
        yield "\n".join(
            ["| column | type | key | |", "| --- | --- | --- | --- |", *_columns(connection, table, column_comments)]
        )
        yield ""
        indexes = list(_indexes(connection, table))
        if indexes:
            yield "\n".join(["Indexes:\n", *(f"- {index}" for index in indexes), ""])
    yield "## Views\n"
    for (view,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY rowid"):
        columns = ", ".join(f"`{column['name']}`" for column in connection.execute(f"PRAGMA table_info({view})"))
        yield f"- `{view}`: {columns}"
    yield ""


def _columns(connection: sqlite3.Connection, table: str, column_comments: dict[str, dict[str, str]]) -> Iterator[str]:
    foreign_keys = {
        key["from"]: f"→ {key['table']}.{key['to']}" for key in connection.execute(f"PRAGMA foreign_key_list({table})")
    }
    for column in connection.execute(f"PRAGMA table_info({table})"):
        name, primary, default = column["name"], column["pk"], column["dflt_value"]
        notes = [] if column["notnull"] or primary else ["may be null"]
        if default is not None:
            notes.append(f"default {default}")
        notes.append(column_comments.get(table, {}).get(name, ""))
        key = " ".join(filter(None, ("primary" if primary else "", foreign_keys.get(name, ""))))
        yield f"| `{name}` | {column['type']} | {key} | {'; '.join(filter(None, notes))} |"


def _indexes(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    statements = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL ORDER BY rowid",
        (table,),
    )
    for (sql,) in statements:
        unique, name, rest = re.match(r"CREATE (UNIQUE )?INDEX (\w+) ON \w+ (.*)", " ".join(sql.split())).groups()  # type: ignore[union-attr]
        yield f"`{name}`: {unique.lower() if unique else ''}`{rest}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
