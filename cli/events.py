"""The ``events`` command, which shows a job's events.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the registry. It only reads, and moves
no subscriber.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .claimed_job import resolve_job
from .context import open_registry
from .messages import print_hint
from .parameters import AsJson, ClaimedJobId
from .tables import Cell, print_table

if TYPE_CHECKING:
    from jobdb.model import Event
    from jobdb.registry import Registry

_PAGE = 100  # an event may have 256 KiB
_LONGEST_WAIT_SEC = 60.0


def events(
    ctx: typer.Context,
    job: ClaimedJobId = None,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", help="Only events after this seq.", min=0)] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show further events as they are recorded, until the job has ended.")
    ] = False,
    wire: Annotated[
        bool,
        typer.Option(
            "--wire", help="Print the payloads exactly as they are sent, one per line, as input for 'accept'."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job's events.

    One line per event: seq, time, event, attempt, detail. With --json: one object per line. The command only reads;
    a program that must handle each event uses 'jobdb subscribe'.

    \b
    Examples:
      jobdb events 0f3a9c2d7b11 --follow
      jobdb events 0f3a9c2d7b11 --wire | jobdb --db other.db accept --subscriber me -
    """
    if wire and as_json:
        raise InvalidInput("--wire and --json both select the output format; give one of them")
    job = resolve_job(job)
    with open_registry(ctx) as registry:
        if follow or wire or as_json or not output.on_terminal():
            _stream(registry, job, after, follow=follow, wire=wire, as_json=as_json)
            return
        shown = list(registry.all_events(job, after=after))
    if not shown:
        print_hint(f"no events yet; 'jobdb events {job} --follow' waits for them", ctx)
        return
    print_table(("SEQ", "TIME", "EVENT", "ATTEMPT", "DETAIL"), [_row(event) for event in shown], wide="DETAIL")


def _stream(registry: Registry, job_id: str, after: int, *, follow: bool, wire: bool, as_json: bool) -> None:
    store = registry.store
    while True:
        seen = store.data_version()
        # Read the status before the page: the events that ended the job are then on the page.
        ended = not follow or registry.get(job_id).terminal
        page = registry.events(job_id, after=after, limit=_PAGE)
        for event in page:
            if wire:
                output.print_payload(event.payload)
            elif as_json:
                output.print_json(event.as_dict())
            else:
                output.print_tsv(event.seq, event.timestamp, event.event, event.attempt, event.detail)
            after = event.seq
        output.flush()
        if page:
            continue
        if ended:
            return
        store.wait_for_change(seen, _LONGEST_WAIT_SEC)


def _row(event: Event) -> list[Cell]:
    from .formatting import EVENT_STYLES

    return [
        str(event.seq),
        event.timestamp,
        (event.event.value, EVENT_STYLES.get(event.event, "")),
        "" if event.attempt is None else str(event.attempt),
        event.detail,
    ]
