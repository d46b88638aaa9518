"""The arguments and options that several commands share, each said once."""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import complete_job_ids

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", autocompletion=complete_job_ids)]

Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one object a line.")]

Attempt = Annotated[
    int | None,
    typer.Option(
        "--attempt",
        metavar="N",
        envvar="JOBDB_ATTEMPT",
        help="The claim that this belongs to, as 'claim --json' gave it: refused when the claim was taken over.",
    ),
]

ClaimedAttempt = Annotated[
    int,
    typer.Option(
        "--attempt", metavar="N", envvar="JOBDB_ATTEMPT", help="The claim's number, as 'claim --json' gave it."
    ),
]

LeaseSec = Annotated[
    float, typer.Option("--lease-sec", metavar="SEC", help="The claim runs out after so many seconds unless renewed.")
]

Detail = Annotated[str, typer.Option("--detail", metavar="TEXT", help="A sentence for people.")]

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="JSON", help="Further facts: a JSON object, or @FILE that holds it (@-: stdin)."),
]

Subscriber = Annotated[
    str,
    typer.Option(
        "--subscriber", "-s", metavar="NAME", help="Who observes; what it has accepted is kept under this name."
    ),
]

Start = Annotated[
    str,
    typer.Option(
        "--start",
        metavar="WHERE",
        help="Where a new subscriber begins: 'beginning', or 'now' (nothing that is recorded already).",
    ),
]

TicketFile = Annotated[
    str | None,
    typer.Option(
        "--ticket",
        metavar="FILE",
        help="Work with a ticket of 'jobdb ticket' instead of a database, on any machine.",
    ),
]

Deliver = Annotated[
    bool | None,
    typer.Option(
        "--deliver/--no-deliver",
        help="Hand it to the broker at once, as far as that works; the relay does the rest. With --ticket it is "
        "done unless --no-deliver says otherwise.",
        show_default=False,
    ),
]
