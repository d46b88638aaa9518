"""The command that shows what was said about a job: events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .parameters import JobId, Json

if TYPE_CHECKING:
    from jobdb.model import Event
    from jobdb.registry import Registry

_PAGE = 100  # an event may have 256 KiB
_LONGEST_WAIT_SEC = 60.0
_STYLES = {"permission_required": "bold magenta", "completed": "green", "error": "bold red"}


def events(
    ctx: typer.Context,
    job: JobId,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", help="Only events after this seq.", min=0)] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay and show events as they come, until the job has ended.")
    ] = False,
    wire: Annotated[
        bool,
        typer.Option("--wire", help="Print the payloads exactly as they travel, one a line, as 'accept' reads them."),
    ] = False,
    json: Json = False,
) -> None:
    """Show what was said about a job.

    A line for each event: seq, time, event, attempt, detail. With --json: an object on each line. This looks
    and changes nothing; a program that must act on each event uses 'jobdb subscribe'.

    \b
    Examples:
      jobdb events 0f3a9c2d7b11 --follow
      jobdb events 0f3a9c2d7b11 --wire | jobdb --db other.db accept --subscriber me -
    """
    if wire and json:
        raise InvalidInput("--wire and --json both choose the form; give one of them")
    with open_registry(ctx) as registry:
        if follow or wire or json or not output.on_terminal():
            _stream(registry, job, after, follow=follow, wire=wire, json=json)
            return
        found = list(registry.all_events(job, after=after))
    if not found:
        output.hint(f"nothing was said yet; 'jobdb events {job} --follow' waits for it")
        return
    output.table(("SEQ", "TIME", "EVENT", "TRY", "DETAIL"), [_row(event) for event in found], wide="DETAIL")


def _stream(registry: Registry, job_id: str, after: int, *, follow: bool, wire: bool, json: bool) -> None:
    store = registry.engine.store
    while True:
        seen = store.data_version()
        # Read first: events that come with the job's end are then on the page that follows.
        ended = not follow or registry.get(job_id).terminal
        page = registry.events(job_id, after=after, limit=_PAGE)
        for event in page:
            if wire:
                output.payload_line(event.payload)
            elif json:
                output.json_line(event.as_dict())
            else:
                output.tsv_line(event.seq, event.timestamp, event.event, event.attempt, event.detail)
            after = event.seq
        output.flush()
        if page:
            continue
        if ended:
            return
        store.wait_for_change(seen, _LONGEST_WAIT_SEC)


def _row(event: Event) -> list[output.Cell]:
    return [
        str(event.seq),
        event.timestamp,
        (event.event.value, _STYLES.get(event.event.value, "")),
        "" if event.attempt is None else str(event.attempt),
        event.detail,
    ]
