"""The command for one's own questions: query."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any

import typer

from . import output
from .context import open_registry

FORMATS = ("table", "json", "csv")


def query(
    ctx: typer.Context,
    sql: Annotated[str, typer.Argument(metavar="SELECT", help="One SELECT on the views.")],
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORM", help="table, json (an object a line) or csv."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many rows.", min=1)] = 10_000,
    timeout_sec: Annotated[float, typer.Option("--timeout-sec", metavar="SEC", help="The most it may take.")] = 30.0,
) -> None:
    """Ask the database with SQL, reading only.

    The views v_jobs, v_events, v_subscriptions, v_refusals and v_verdicts are stable and show no secret; their
    columns are in docs/reference/views.md. Nothing can be written, and sealed columns cannot be read. On a
    terminal that is too narrow for a table each row is shown by itself, a line for each column that has a value.

    \b
    Examples:
      jobdb query "SELECT agent, count(*) AS jobs FROM v_jobs GROUP BY agent"
      jobdb query "SELECT job_id, detail FROM v_events WHERE event = 'error'" --format csv
    """
    from jobdb.errors import InvalidInput

    output_format = "json" if json else output_format or "table"
    if output_format not in FORMATS:
        raise InvalidInput(f"{output_format!r:.40} is no format; the formats are {', '.join(FORMATS)}")
    with open_registry(ctx) as registry:
        columns, rows = registry.store.query(sql, limit=limit, timeout_sec=timeout_sec)
    if output_format == "json":
        for row in rows:
            output.json_line(dict(zip(columns, map(_to_json_value, row), strict=True)))
    elif output_format == "csv":
        import csv

        # A carriage return is quoted only where it is a part of a line's end, and read as one unless it is quoted.
        writer = csv.writer(_CsvLines(), lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows([_to_json_value(value) for value in row] for row in rows)
    else:
        cells = [["" if value is None else str(_to_json_value(value)) for value in row] for row in rows]
        if rows and output.on_terminal() and not output.table_fits(columns, cells):
            for number, texts in enumerate(cells):
                if number:
                    output.line("")
                output.record({name: value or None for name, value in zip(columns, texts, strict=True)})
        else:
            output.table(columns, cells)
    if len(rows) == limit:
        output.note(f"the first {limit} rows; --limit shows more")


class _CsvLines:
    """Where the CSV writer writes: stdout, with plain line ends."""

    def write(self, row: str) -> None:
        output.line(row.removesuffix("\r\n"))


def _to_json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not isfinite(value):  # JSON has no number for it
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value
