"""The ``stats`` command, which shows statistics of the registry.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.operations.stats`` and draws
what it counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .context import open_registry
from .inputs import resolve_format
from .parameters import AsJson
from .tables import Cell, print_table

if TYPE_CHECKING:
    from jobdb.operations.stats import Stats

FORMATS = ("table", "json", "prometheus")


def stats(
    ctx: typer.Context,
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="table, json (one object) or prometheus."),
    ] = None,
    as_json: AsJson = False,
    days: Annotated[
        int,
        typer.Option(
            "--days", metavar="N", help="The number of days for the counts by day and the durations.", min=1, max=3660
        ),
    ] = 14,
) -> None:
    """Show statistics of jobs, durations and refused events.

    Jobs are counted by status, agent and day. Refused events are those that 'accept' did not accept, by verdict.

    In a pipe: one line per number, tab-separated: 'job', a status and the count; 'agent', its name, a status and the
    count; 'day', the day, a status and the count; 'duration', the agent, the number of jobs, the mean and the longest
    in seconds; 'refused', a verdict and the count; 'events' and the count; 'outbox' and the count of waiting events;
    'delayed' and the count of pending jobs that nobody can claim yet; 'retried' and the count of jobs that have not
    ended and have used up a try; 'questions' and the count of open ones.
    With --format prometheus: metrics in text format, for the textfile collector of a node exporter.

    \b
    Examples:
      jobdb stats --json
      jobdb stats --format prometheus > jobdb.prom.new && mv jobdb.prom.new /var/lib/node_exporter/jobdb.prom
    """
    output_format = resolve_format(output_format, as_json=as_json, formats=FORMATS)
    from jobdb.operations.stats import collect, prometheus

    with open_registry(ctx) as registry:
        collected = collect(registry, days=days)
    if output_format == "json":
        output.print_json(collected.as_dict())
    elif output_format == "prometheus":
        output.print_line(prometheus(collected).rstrip("\n"))
    elif output.on_terminal():
        _draw(collected)
    else:
        _print(collected)


def _print(stats: Stats) -> None:
    for status, count in stats.jobs.items():
        output.print_tsv("job", status, count)
    for label, groups in (("agent", stats.by_agent), ("day", stats.by_day)):
        for name, counts in groups.items():
            for status, count in counts.items():
                if count:
                    output.print_tsv(label, name, status, count)
    for duration in stats.durations:
        output.print_tsv("duration", duration.agent, duration.jobs, duration.mean_sec, duration.longest_sec)
    for verdict, total in stats.refusals.items():
        output.print_tsv("refused", verdict, total.times)
    output.print_tsv("events", stats.events)
    output.print_tsv("outbox", stats.outbox)
    output.print_tsv("delayed", stats.delayed)
    output.print_tsv("retried", stats.retried)
    output.print_tsv("questions", stats.open_questions)


def _draw(stats: Stats) -> None:
    from jobdb.system.durations import format_duration

    from .formatting import STATUS_STYLES, pluralize

    def print_counts(title: str, groups: dict[str, dict[str, int]]) -> None:
        rows: list[list[Cell]] = [
            [
                name,
                *(_count(counts.get(status.value, 0), style) for status, style in STATUS_STYLES.items()),
                str(sum(counts.values())),
            ]
            for name, counts in groups.items()
        ]
        print_table((title, *(status.value.upper() for status in STATUS_STYLES), "ALL"), rows)

    print_counts("", {"jobs": stats.jobs})
    if stats.delayed or stats.retried:
        output.print_line(f"{stats.delayed} pending not ready yet, {stats.retried} with used-up tries")
    if stats.by_agent:
        output.print_line("")
        print_counts("AGENT", stats.by_agent)
    if stats.by_day:
        output.print_line("")
        print_counts("DAY", stats.by_day)
    if stats.durations:
        output.print_line("")
        print_table(
            ("AGENT", "ENDED", "MEAN", "LONGEST"),
            [
                (row.agent, str(row.jobs), format_duration(row.mean_sec), format_duration(row.longest_sec))
                for row in stats.durations
            ],
        )
    if stats.refusals:
        output.print_line("")
        print_table(
            ("REFUSED", "COUNT", "LAST"),
            [((verdict, "red"), str(total.times), total.last_at or "") for verdict, total in stats.refusals.items()],
        )
    output.print_line("")
    output.print_line(f"{pluralize(stats.events, 'event')} recorded, {stats.outbox} waiting for a broker")
    if stats.open_questions:
        waiting = f"{pluralize(stats.open_questions, 'open question')}: 'jobdb questions' lists them"
        output.print_line(waiting)


def _count(number: int, style: str) -> Cell:
    return (str(number), style) if number else ("·", "dim")
