"""The ``ticket`` command, which lets a worker on another machine publish events of a job.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.mqtt``, which issues and writes
the ticket. It connects to no broker.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .messages import print_hint
from .parameters import JobId


def ticket(
    ctx: typer.Context,
    job: JobId,
    out: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; '-' is stdout. Default: JOB.ticket."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the ticket's contents as one object, without the secrets.")
    ] = False,
) -> None:
    """Write a ticket, with which a worker on another machine publishes a job's events.

    The file is a secret: it holds the job's token and the broker's password unencrypted, and has mode 0600.
    Transfer it over a secure channel and delete it when the job has ended. On the other machine,
    'jobdb publish --ticket FILE EVENT' signs and numbers events and keeps them in a local outbox until the
    broker has acknowledged them. Claim the job first: the ticket is valid for the current attempt, and once the job
    is claimed again, events published with it are refused. Use a ticket on one machine at a time.

    \b
    Examples:
      jobdb ticket 0f3a9c2d7b11 --output /run/user/1000/job.ticket
      jobdb ticket 0f3a9c2d7b11 -o - | ssh worker 'umask 077; cat > job.ticket'
    """
    from jobdb.mqtt import issue_ticket, write_ticket

    with open_registry(ctx) as registry:
        issued = issue_ticket(registry, job)
    if out == "-":
        if as_json:
            raise InvalidInput("--output - and --json both write to stdout; leave one of them out")
        if sys.stdout.isatty():
            raise InvalidInput("a ticket is a secret and is not shown on a terminal; give --output FILE, or use a pipe")
        sys.stdout.write(issued.as_json())
        return
    path = Path(out if out is not None else f"{job}.ticket")
    write_ticket(issued, path)
    if as_json:
        broker = {"host": issued.host, "port": issued.port, "tls": issued.tls}
        output.print_json(
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
    output.print_line(str(path))
    print_hint(f"it holds secrets; on the other machine: jobdb publish --ticket {path.name} started")
