"""The export for other programs: one JSON object per job (ndjson), or one row per job (csv).

Called by the command line and by applications. Reads page by page, newest first, so memory stays bounded. The fields
are those of `Job.as_dict`; ndjson adds the job's events as published. Secrets are included only on request.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...model import Job

if TYPE_CHECKING:
    from ...registry import Registry

Json = Any

FORMATS = ("ndjson", "csv")
_EVENTS_PER_PAGE = 1000


def write_lines(
    registry: Registry, stream: IO[str], form: str, *, with_secrets: bool = False, jobs: Iterator[Job] | None = None
) -> int:
    """Write jobs to a text stream; for csv open it with ``newline=""``.

    Args:
        registry: the registry to export.
        stream: the stream to write to.
        form: "ndjson" or "csv".
        with_secrets: True to add ``auth_token`` and ``broker_password`` in clear text.
        jobs: the jobs to write; all if None.

    Returns:
        The number of jobs written.

    Raises:
        InvalidInput: the format is unknown.
        KeyProblem: the master key is not the one that sealed the secrets.

    Example:
        with Registry.open("sqlite:///jobs.db") as registry:
            write_lines(registry, sys.stdout, "ndjson")
    """
    if form not in FORMATS:
        raise InvalidInput(f"unknown format {form!r:.40}; the formats are {', '.join(FORMATS)}")
    registry.store.sync()
    documents = (_document(registry, job, with_secrets) for job in jobs or registry.all_jobs())
    return _write_csv(documents, stream) if form == "csv" else _write_ndjson(registry, documents, stream)


def _document(registry: Registry, job: Job, with_secrets: bool) -> dict[str, Json]:
    document = job.as_dict()
    if with_secrets:
        document["auth_token"] = registry.tokens.show(job.job_id) if job.auth == "required" else None
        _broker, document["broker_password"] = registry.engine.broker(job.job_id)
    return document


def _write_ndjson(registry: Registry, documents: Iterator[dict[str, Json]], stream: IO[str]) -> int:
    count = 0
    for document in documents:
        document["events"] = list(_payloads(registry, document["job_id"]))
        stream.write(json.dumps(document) + "\n")
        count += 1
    return count


def _payloads(registry: Registry, job_id: str) -> Iterator[Json]:
    after = 0
    while page := registry.events(job_id, after=after, limit=_EVENTS_PER_PAGE):
        for event in page:
            yield json.loads(event.payload)
        after = page[-1].seq


def _write_csv(documents: Iterator[dict[str, Json]], stream: IO[str]) -> int:
    writer = None
    count = 0
    for document in documents:
        if writer is None:
            writer = csv.DictWriter(stream, list(document))
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in document.items()})
        count += 1
    return count


def _cell(value: Json) -> Json:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
