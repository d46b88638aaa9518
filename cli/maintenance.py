"""The commands that keep a registry in order: reap, prune."""

from __future__ import annotations

from typing import Annotated

import typer

from . import inputs, output
from .context import open_registry
from .parameters import Json

_BATCH = 500


def reap(
    ctx: typer.Context,
    strike_limit: Annotated[
        int,
        typer.Option("--strike-limit", metavar="N", help="A job ends as error when its lease ran out so often.", min=1),
    ] = 3,
    json: Json = False,
) -> None:
    """Bring back what dead workers left and end what is overdue.

    Jobs whose lease ran out become pending again, or end as error at the --strike-limit; jobs past their
    time limits end as error. Run it from time to time, from anywhere. A line for each job with tabs between
    id, 'returned' or 'ended', and the reason.

    \b
    Example:
      * * * * * jobdb --db /var/lib/jobs/jobs.db reap
    """
    with open_registry(ctx) as registry:
        while reaped := registry.reap(strike_limit=strike_limit, limit=_BATCH):
            for one in reaped:
                if json:
                    output.json_line(one.as_dict())
                else:
                    output.tsv_line(one.job_id, one.action, one.reason)
            output.flush()


def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="How long ago they ended: 30d, 12h, 2w, …")
    ],
    json: Json = False,
) -> None:
    """Delete jobs that ended long ago.

    With their events and tokens; jobs with events that still wait for the broker stay. Done in small
    batches, so that others can work meanwhile and stopping it half-way is safe. Prints how many were deleted.

    \b
    Example:
      jobdb prune --older-than 30d
    """
    age = inputs.duration(older_than, option="--older-than")
    deleted = 0
    with open_registry(ctx, checkpoint=True) as registry:
        # One moment for the whole run: jobs that end meanwhile are not its business.
        now = registry.store.clock()
        while batch := registry.prune(older_than_sec=age, limit=_BATCH, now_ms=now):
            deleted += len(batch)
    if json:
        output.json_line({"deleted": deleted})
    else:
        output.line(str(deleted))
