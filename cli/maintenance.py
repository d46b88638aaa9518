"""The commands for regular maintenance: reap, prune.

Called by the ``jobdb`` group (``commands.py``), when one of them is run, usually from a timer; calls the registry's
verbs of the same names, batch by batch.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import inputs, output
from .context import open_registry
from .parameters import AsJson

_BATCH = 500


def reap(
    ctx: typer.Context,
    strike_limit: Annotated[
        int,
        typer.Option(
            "--strike-limit",
            metavar="N",
            help="The number of expired leases that ends a job registered without --max-attempts.",
            min=1,
        ),
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Requeue jobs with expired leases, then end overdue jobs.

    First, a job whose lease has expired, because its worker died, becomes pending again, with one try used up; at its
    last try it ends as error. Then, a job that has run longer than its timeout ends as error, and so does one that
    was silent for longer than its idle timeout, unless a live lease or an open question (permission_required)
    protects it. Prints one line per job with tab-separated id, 'returned' or 'ended', and the reason.

    'jobdb work' does both by itself, so where one is running, nothing needs this command. 'jobdb claim' does the first
    part. Where all jobs are claimed with it, run 'jobdb reap' regularly, on any host, for the time limits.

    \b
    Example:
      * * * * * jobdb --db /var/lib/jobs/jobs.db reap
    """
    with open_registry(ctx) as registry:
        while reaped := registry.reap(strike_limit=strike_limit, limit=_BATCH):
            for job in reaped:
                if as_json:
                    output.print_json(job.as_dict())
                else:
                    output.print_tsv(job.job_id, job.action, job.reason)
            output.flush()


def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="AGE", help="Delete jobs that ended longer ago than this: 30d, 12h, 2w, …"
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Delete jobs that ended long ago.

    Their events and tokens are deleted too; jobs with events that are still waiting for a broker are kept. Works in
    small batches, so other processes can continue, and it is safe to interrupt. Prints the number of deleted jobs.

    \b
    Example:
      jobdb prune --older-than 30d
    """
    age = inputs.parse_duration(older_than, option="--older-than")
    deleted = 0
    with open_registry(ctx, checkpoint=True) as registry:
        # One point in time for the whole run: jobs that end meanwhile are kept.
        now = registry.store.clock()
        while batch := registry.prune(older_than_sec=age, limit=_BATCH, now_ms=now):
            deleted += len(batch)
    if as_json:
        output.print_json({"deleted": deleted})
    else:
        output.print_line(str(deleted))
