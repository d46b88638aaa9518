"""The command that shows how the work goes in numbers: stats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .parameters import Json

if TYPE_CHECKING:
    from jobdb.operations.stats import Stats

FORMATS = ("table", "json", "prometheus")


def stats(
    ctx: typer.Context,
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORM", help="table, json (one object) or prometheus."),
    ] = None,
    json: Json = False,
    days: Annotated[
        int, typer.Option("--days", metavar="N", help="How far back the days and the durations go.", min=1, max=3660)
    ] = 14,
) -> None:
    """Show how the work goes in numbers.

    Jobs by status, agent and day, durations, refusals.

    In a pipe a line for each number, with tabs between: 'job' and a status; 'agent', its name and a status;
    'day', the day and a status; 'duration', the agent, how many jobs, mean and longest in seconds; 'refused', a
    verdict; 'events'; 'outbox'; then the count. Refusals are events that did not pass the checks of 'accept'.
    With --format prometheus: metrics as text, for a node exporter's textfile folder.

    \b
    Examples:
      jobdb stats --json
      jobdb stats --format prometheus > jobdb.prom.new && mv jobdb.prom.new /var/lib/node_exporter/jobdb.prom
    """
    output_format = "json" if json else output_format or "table"
    if output_format not in FORMATS:
        raise InvalidInput(f"{output_format!r:.40} is no format; the formats are {', '.join(FORMATS)}")
    from jobdb.operations.stats import collect, prometheus

    with open_registry(ctx) as registry:
        found = collect(registry, days=days)
    if output_format == "json":
        output.json_line(found.as_dict())
    elif output_format == "prometheus":
        output.line(prometheus(found).rstrip("\n"))
    elif output.on_terminal():
        _draw(found)
    else:
        _print(found)


def _print(found: Stats) -> None:
    for status, count in found.jobs.items():
        output.tsv_line("job", status, count)
    for what, groups in (("agent", found.by_agent), ("day", found.by_day)):
        for name, counts in groups.items():
            for status, count in counts.items():
                if count:
                    output.tsv_line(what, name, status, count)
    for one in found.durations:
        output.tsv_line("duration", one.agent, one.jobs, one.mean_sec, one.longest_sec)
    for verdict, total in found.refusals.items():
        output.tsv_line("refused", verdict, total.times)
    output.tsv_line("events", found.events)
    output.tsv_line("outbox", found.outbox)


def _draw(found: Stats) -> None:
    from jobdb.system.durations import format_duration

    from .jobs import STATUS_STYLES

    def counts(title: str, groups: dict[str, dict[str, int]]) -> None:
        rows: list[list[output.Cell]] = [
            [
                name,
                *(_count(of.get(status.value, 0), style) for status, style in STATUS_STYLES.items()),
                str(sum(of.values())),
            ]
            for name, of in groups.items()
        ]
        output.table((title, *(status.value.upper() for status in STATUS_STYLES), "ALL"), rows)

    counts("", {"jobs": found.jobs})
    if found.by_agent:
        output.line("")
        counts("AGENT", found.by_agent)
    if found.by_day:
        output.line("")
        counts("DAY", found.by_day)
    if found.durations:
        output.line("")
        output.table(
            ("AGENT", "ENDED", "MEAN", "LONGEST"),
            [
                (one.agent, str(one.jobs), format_duration(one.mean_sec), format_duration(one.longest_sec))
                for one in found.durations
            ],
        )
    if found.refusals:
        output.line("")
        output.table(
            ("REFUSED", "TIMES", "LAST"),
            [((verdict, "red"), str(total.times), total.last_at or "") for verdict, total in found.refusals.items()],
        )
    output.line("")
    output.line(f"{found.events} events kept, {found.outbox} wait for the broker")


def _count(number: int, style: str) -> output.Cell:
    return (str(number), style) if number else ("·", "dim")
