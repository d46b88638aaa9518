"""The command that lets a worker on another machine publish: ticket."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .parameters import JobId


def ticket(
    ctx: typer.Context,
    job: JobId,
    out: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; JOB.ticket otherwise; '-' is stdout."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print what it is for as one object, without the secrets.")
    ] = False,
) -> None:
    """Write a ticket: what a worker on another machine needs to publish a job's events.

    The file is a secret: it holds the job's token and the broker's password in clear, so it has mode 0600;
    carry it over a safe channel and delete it when the job has ended. There, 'jobdb publish --ticket FILE
    EVENT' signs and numbers events and keeps them in an outbox of its own until the broker has them. Claim
    the job first: the ticket is for the present attempt, and once the job is claimed anew, what comes from
    it is refused. Use it on one machine at a time.

    \b
    Examples:
      jobdb ticket 0f3a9c2d7b11 --output /run/user/1000/job.ticket
      jobdb ticket 0f3a9c2d7b11 -o - | ssh worker 'umask 077; cat > job.ticket'
    """
    from jobdb.mqtt import issue_ticket, write_ticket

    with open_registry(ctx) as registry:
        issued = issue_ticket(registry, job)
    if out == "-":
        if json:
            raise InvalidInput("--output - and --json both write to stdout; leave one of them out")
        if sys.stdout.isatty():
            raise InvalidInput("a ticket is a secret and is not shown on a terminal; give --output FILE, or a pipe")
        sys.stdout.write(issued.as_json())
        return
    path = Path(out if out is not None else f"{job}.ticket")
    write_ticket(issued, path)
    if json:
        broker = {"host": issued.host, "port": issued.port, "tls": issued.tls}
        output.json_line(
            {
                "file": str(path),
                "job_id": issued.job_id,
                "topic": issued.topic,
                "broker": broker,
                "attempt": issued.attempt,
                "next_seq": issued.next_seq,
            }
        )
        return
    output.line(str(path))
    output.hint(f"it holds secrets; there: jobdb publish --ticket {path.name} started", here=False)
