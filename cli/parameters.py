"""The arguments and options that several commands share, each defined once.

Used by the signatures of most commands; imports only Typer and ``completion``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import complete_job_ids

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", autocompletion=complete_job_ids)]

ClaimedJobId = Annotated[
    str | None,
    typer.Argument(
        metavar="[JOB]",
        help="The job's id. Default: $JOBDB_JOB_ID.",
        autocompletion=complete_job_ids,
        show_default=False,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one object per line.")]

PayloadAsJson = Annotated[bool, typer.Option("--json", help="Print the event's payload as it is sent, on one line.")]

Attempt = Annotated[
    int | None,
    typer.Option(
        "--attempt",
        metavar="N",
        help="The claim's number; what it does is refused once the claim was taken over. Default: $JOBDB_ATTEMPT, "
        "unless $JOBDB_JOB_ID is another job.",
        show_default=False,
    ),
]

LeaseSec = Annotated[
    float, typer.Option("--lease-sec", metavar="SEC", help="The claim expires after SEC seconds unless renewed again.")
]

Detail = Annotated[str, typer.Option("--detail", metavar="TEXT", help="A description for people.")]

Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="JSON", help="Structured data: a JSON object, or @FILE to read it from a file (@-: stdin)."
    ),
]

Subscriber = Annotated[
    str,
    typer.Option(
        "--subscriber", "-s", metavar="NAME", help="The subscriber; what it has accepted is stored under this name."
    ),
]

Start = Annotated[
    str,
    typer.Option(
        "--start",
        metavar="WHERE",
        help="Where a new subscriber starts: 'beginning', or 'now' to skip the events that are already recorded.",
    ),
]

TicketFile = Annotated[
    str | None,
    typer.Option(
        "--ticket", metavar="FILE", help="Use a ticket from 'jobdb ticket' instead of a database, on any machine."
    ),
]

Deliver = Annotated[
    bool | None,
    typer.Option(
        "--deliver/--no-deliver",
        help="Try to deliver the event to the broker at once, for a few seconds; the relay delivers what is left. "
        "Default: only with --ticket.",
        show_default=False,
    ),
]
