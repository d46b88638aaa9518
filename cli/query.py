"""The ``query`` command, which runs a read-only SQL query.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the engine's query, which refuses to
write and to read secrets.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated

import typer

from . import output
from .context import open_registry
from .inputs import resolve_format
from .messages import print_note
from .tables import print_record, print_table, table_fits

FORMATS = ("table", "json", "csv")


def query(
    ctx: typer.Context,
    sql: Annotated[str, typer.Argument(metavar="SELECT", help="One SELECT statement on the views.")],
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="table, json (one object per line) or csv."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="The maximum number of rows.", min=1)] = 10_000,
    timeout_sec: Annotated[
        float, typer.Option("--timeout-sec", metavar="SEC", help="Stop the query after SEC seconds.")
    ] = 30.0,
) -> None:
    """Query the database with SQL, read-only.

    The views v_jobs, v_events, v_subscriptions, v_refusals and v_verdicts are stable and contain no secrets; their
    columns are described in docs/reference/views.md. Nothing can be written, and encrypted columns cannot be read.
    On a terminal that is too narrow for a table, each row is shown as a record, one line per column with a value.

    \b
    Examples:
      jobdb query "SELECT agent, count(*) AS jobs FROM v_jobs GROUP BY agent"
      jobdb query "SELECT job_id, detail FROM v_events WHERE event = 'error'" --format csv
    """
    output_format = resolve_format(output_format, as_json=as_json, formats=FORMATS)
    with open_registry(ctx) as registry:
        columns, rows = registry.store.query(sql, limit=limit, timeout_sec=timeout_sec)
    if output_format == "json":
        for row in rows:
            output.print_json(dict(zip(columns, map(_to_json_value, row), strict=True)))
    elif output_format == "csv":
        import csv

        # The csv module quotes a carriage return only when the line terminator has one; unquoted, it would be read as
        # the end of a line.
        writer = csv.writer(_CsvLines(), lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows([_to_json_value(value) for value in row] for row in rows)
    else:
        cells = [["" if value is None else str(_to_json_value(value)) for value in row] for row in rows]
        if rows and output.on_terminal() and not table_fits(columns, cells):
            for number, texts in enumerate(cells):
                if number:
                    output.print_line("")
                print_record({name: value or None for name, value in zip(columns, texts, strict=True)})
        else:
            print_table(columns, cells)
    if len(rows) == limit:
        print_note(f"only the first {limit} rows are shown; --limit shows more")


class _CsvLines:
    """The CSV writer's file: stdout, with plain line ends."""

    def write(self, row: str) -> None:
        output.print_line(row.removesuffix("\r\n"))


def _to_json_value(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not isfinite(value):  # JSON has no such number
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value
