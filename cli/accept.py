"""The ``accept`` command, which verifies events that were received by another program.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the registry, which decides every
verdict.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .parameters import AsJson, Start, Subscriber

if TYPE_CHECKING:
    from jobdb.model import Acceptance

_CHUNK_BYTES = 1 << 18
_BATCH = 500
_SHORT_LINE_BATCH = 5_000
_SHORT_LINE_BYTES = 64
"""A line as short as this is not an event; small transactions would cost far more than such lines themselves."""


def accept(
    ctx: typer.Context,
    subscriber: Subscriber,
    source: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A file of payloads, one per line; '-' is stdin.")
    ] = "-",
    topic: Annotated[
        str | None,
        typer.Option("--topic", metavar="TOPIC", help="The MQTT topic on which they were received; must be the job's."),
    ] = None,
    window: Annotated[
        int,
        typer.Option(
            "--window", metavar="N", help="Accept a skipped event that arrives up to N seqs late, once.", min=0
        ),
    ] = 0,
    start: Start = "beginning",
    as_json: AsJson = False,
) -> None:
    """Verify received events and print a verdict for each.

    Each payload is verified, checked for replay against what this subscriber has accepted, recorded and applied to
    its job. Prints one line per payload with tab-separated verdict, job, seq and reason; with --json an object with
    verdict, job_id, seq, missing, missing_count and reason. An event that was accepted once is a 'duplicate' from then
    on. Input and output are streams, so the command can read from an MQTT client. Blank lines are ignored. Exit code 1
    if any event was refused, that is neither accepted nor a duplicate.

    \b
    Examples:
      jobdb accept --subscriber orchestrator events.ndjson
      mosquitto_sub -t 'jobs/+/events' | jobdb accept --subscriber orchestrator --json -
    """
    from jobdb.core import arguments
    from jobdb.model import Arrival

    refused = False
    with _InputFile(source) as descriptor, open_registry(ctx) as registry:
        begin = arguments.start(start)
        registry.accept_many((), subscriber=subscriber, window=window, start=begin)  # check the options first
        for lines in _batches(descriptor):
            arrivals = [Arrival(payload, topic) for payload in lines]
            for acceptance in registry.accept_many(arrivals, subscriber=subscriber, window=window, start=begin):
                refused = refused or acceptance.verdict.refused
                _print(acceptance, as_json=as_json)
            output.flush()
    raise typer.Exit(1 if refused else 0)


class _InputFile:
    """Opens a file, or stdin for ``-``, for the duration of a block, and closes the file, but not stdin."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._descriptor = -1

    def __enter__(self) -> int:
        if self._source == "-":
            return sys.stdin.fileno()
        try:
            self._descriptor = os.open(self._source, os.O_RDONLY)
            os.read(self._descriptor, 0)
        except OSError as error:
            raise InvalidInput(f"cannot read payloads from {self._source!r}: {error.strerror}") from error
        return self._descriptor

    def __exit__(self, *_failure: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _batches(descriptor: int) -> Iterator[list[bytes]]:
    """Yield the lines in batches: those that have arrived are processed without waiting for more.

    A line that is longer than a payload may be is truncated, and so malformed: memory stays bounded.
    """
    from jobdb.core.protocol import MAX_PAYLOAD_BYTES

    max_bytes = MAX_PAYLOAD_BYTES + 1
    rest = bytearray()  # grows in place: a line may arrive in a thousand pieces
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        first, *whole = chunk.split(b"\n")
        rest += first[: max_bytes + 1 - len(rest)]
        if not whole:
            continue
        lines = [bytes(rest), *whole[:-1]]
        rest = bytearray(whole[-1][: max_bytes + 1])
        lines = [line[:max_bytes].removesuffix(b"\r") for line in lines if line.strip()]
        batch_size = _BATCH if len(chunk) > _SHORT_LINE_BYTES * len(lines) else _SHORT_LINE_BATCH
        for begin in range(0, len(lines), batch_size):
            yield lines[begin : begin + batch_size]
    if rest.strip():
        yield [bytes(rest[:max_bytes]).removesuffix(b"\r")]


def _print(acceptance: Acceptance, *, as_json: bool) -> None:
    if as_json:
        output.print_json(acceptance.as_dict())
        return
    reason = acceptance.reason
    if acceptance.missing:
        first, last = acceptance.missing.start, acceptance.missing.stop - 1
        reason = f"skipped seq {first}" if first == last else f"skipped seqs {first} to {last}"
    output.print_tsv(acceptance.verdict, acceptance.job_id, acceptance.seq, reason)
