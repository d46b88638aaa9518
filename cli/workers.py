"""The ``workers`` command, which shows who works where, and on what.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the registry, which it only reads.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from jobdb.system.durations import format_duration

from . import output
from .context import open_registry
from .messages import print_hint
from .parameters import AsJson
from .tables import Cell, print_table

if TYPE_CHECKING:
    from jobdb.model import WorkerRecord


def workers(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the workers that run jobs.

    On a terminal: a table; a heartbeat that is older than the worker's lease is red. In a pipe: one line per worker
    with tab-separated name, host, agent, used slots, slots, time of its start, time of its last heartbeat, and its
    jobs' ids with commas between them; '-' stands for a missing value. With --json: one object per line.

    A worker that ended is no longer shown; one that was killed is, until another worker of its host starts, or for
    seven days.

    \b
    Examples:
      jobdb workers
      jobdb workers --json | jq .running
    """
    with open_registry(ctx) as registry:
        found = registry.workers()
    if as_json:
        for record in found:
            output.print_json(record.as_dict())
    elif output.on_terminal():
        _draw(ctx, found)
    else:
        for record in found:
            output.print_tsv(*_tsv_values(record))


def _tsv_values(record: WorkerRecord) -> tuple[object, ...]:
    info = record.info
    return (
        info.name,
        info.host,
        info.agent,
        len(record.running),
        info.slots,
        f"{record.started_at:%Y-%m-%dT%H:%M:%SZ}",
        f"{record.heartbeat_at:%Y-%m-%dT%H:%M:%SZ}",
        ",".join(job_id for job_id, _attempt in record.running) or None,
    )


def _draw(ctx: typer.Context, records: list[WorkerRecord]) -> None:
    if not records:
        print_hint("no worker runs jobs of this registry", ctx)
        return
    now = datetime.now(UTC)
    print_table(
        ("WORKER", "HOST", "AGENT", "SLOTS", "SINCE", "HEARTBEAT", "JOBS"),
        [_row(record, now) for record in records],
        wide="JOBS",
    )


def _row(record: WorkerRecord, now: datetime) -> list[Cell]:
    info = record.info
    silent_sec = (now - record.heartbeat_at).total_seconds()
    return [
        info.name,
        info.host,
        info.agent or ("any", "dim"),
        f"{len(record.running)}/{info.slots}",
        format_duration((now - record.started_at).total_seconds()),
        (format_duration(silent_sec), "red" if silent_sec > info.lease_sec else ""),
        ", ".join(job_id for job_id, _attempt in record.running),
    ]
