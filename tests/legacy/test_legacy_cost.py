"""Test that the cost of an import depends on the size of its input and not on its shape.

Compares CPU time of this process, bytes and rows in the database between two imports in the same test. The bound is
wide: each shape was below a third of it when it was chosen; a log of line breaks had been at sixty times a plain one.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry
from jobdb.legacy import export_registry, import_registry
from jobdb.legacy.database.statements import LEGACY
from jobdb.legacy.format.damage import DamageKind
from jobdb.legacy.format.record_parser import parse_record

Open = Callable[..., Registry]
SIZE = 1 << 18
TIMES = 20
RECORD = {
    "schema_version": 1,
    "job_id": "j",
    "status": "running",
    "created_at": "2026-06-19T09:32:00Z",
    "updated_at": "2026-06-19T09:32:00Z",
    "prompt": "p",
    "agent": "codex",
    "broker": None,
    "topic_prefix": "t/j",
    "last_seq": 0,
    "auth_token": "0123456789abcdef0123456789abcdef",
}


def event(seq: int, **changes: Any) -> bytes:
    fields = {"schema_version": 1, "seq": seq, "job_id": "j", "event": "progress", "detail": "step"}
    return json.dumps(fields | {"timestamp": "2026-06-19T09:32:00Z", "data": {"pct": 30}} | changes).encode() + b"\n"


def fill_log(lines: Iterator[bytes]) -> bytes:
    parts, size = [], 0
    while size < SIZE:
        parts.append(next(lines))
        size += len(parts[-1])
    return b"".join(parts)


def plain_log() -> bytes:
    return fill_log(event(seq) for seq in count(1))


SHAPES: dict[str, Callable[[], bytes]] = {
    "line breaks": lambda: b"\n" * SIZE,
    "carriage returns": lambda: b"\r\n" * (SIZE // 2),
    "spaces": lambda: b" \n" * (SIZE // 2),
    "empty objects": lambda: b"{}\n" * (SIZE // 3),
    "blank and not": lambda: fill_log(cycle([b"\n", b"{}\n"])),
    "numbers": lambda: fill_log(b"%d\n" % number for number in count()),
    "small objects": lambda: fill_log(b'{"a":%d}\n' % number for number in count()),
    "lists": lambda: fill_log(b"[%d]\n" % number for number in count()),
    "one line": lambda: b"x" * SIZE,
    "brackets": lambda: b"[" * SIZE,
    "nested": lambda: fill_log(b'{"data":' * 60 + b"1" + b"}" * 60 + b"\n" for _ in count()),
    "a key 20,000 times": lambda: fill_log(b'{"a":1,' + b",".join([b'"a":1'] * 20_000) + b"}\n" for _ in count()),
    "one key twice among 10,000": lambda: fill_log(
        event(1, data={str(number): 1 for number in range(10_000)}).replace(b'"9999": 1', b'"0": 1') for _ in count()
    ),
    "long numbers": lambda: fill_log(b'{"a":' + b"9" * 4300 + b"}\n" for _ in count()),
    "a number": lambda: b"9" * SIZE,
    "a fraction": lambda: b'{"a":0.' + b"9" * SIZE + b"}\n",
    "escapes": lambda: fill_log(event(seq, detail="\u2028" * 9000) for seq in count(1)),
    "half characters": lambda: fill_log(b'{"a":"' + b"\\ud800" * 9000 + b'"}\n' for _ in count()),
    "no UTF-8": lambda: fill_log(b'{"a":"' + b"\xff" * 60 + b'"}\n' for _ in count()),
    "zeros": lambda: fill_log(b"\0" * 70 + b"\n" for _ in count()),
    "separators": lambda: fill_log(("\u2028" * 30 + "\n").encode() for _ in count()),
    "events of another": lambda: fill_log(event(seq, job_id="k") for seq in count(1)),
    "events backwards": lambda: fill_log(event(seq) for seq in range(99_999, 0, -1)),
    "other line ends": lambda: fill_log(event(seq)[:-1] + b"\r\n" for seq in count(1)),
    "one event": lambda: fill_log(event(1) for _ in count()),
    "one seq": lambda: fill_log(event(1, detail=str(number)) for number in count()),
    "the token": lambda: fill_log(event(seq, detail=RECORD["auth_token"]) for seq in count(1)),
}


def time_import(folder: Path, registry: Registry, name: str, content: bytes) -> float:
    """Return the CPU seconds of an import of one job with this log; the export must write the same bytes."""
    workspace = folder / name
    (workspace / ".mam" / "jobs").mkdir(parents=True)
    (workspace / ".mam" / "jobs" / "j.json").write_text(json.dumps(RECORD))
    log = workspace / ".mam" / "jobs" / "j.events.log"
    if name.startswith("audit"):
        log = workspace / ".mam" / "delegate_job_logs" / "j" / "events.ndjson"
        log.parent.mkdir(parents=True)
    log.write_bytes(content)
    began = time.process_time()
    assert import_registry(registry, workspace).counts["imported"] == 1  # type: ignore[index]
    seconds = time.process_time() - began
    assert import_registry(registry, workspace).counts["unchanged"] == 1  # type: ignore[index]
    export_registry(registry, folder / f"{name} out", with_secrets=True)
    assert (folder / f"{name} out" / log.relative_to(workspace)).read_bytes() == content
    return seconds


@pytest.mark.parametrize("log", ["events", "audit"])
def test_no_kind_of_log_costs_much_more_than_a_plain_one(tmp_path: Path, open_database: Open, log: str) -> None:
    plain_database = open_database("plain.db", durability="normal")
    usual = max(0.01, time_import(tmp_path, plain_database, f"{log} plain", plain_log()))
    allowed_bytes, allowed_rows = (3 * size for size in _stored_size(plain_database))
    for number, (name, make) in enumerate(SHAPES.items()):
        for look in range(3):  # measure again before failing: other tests use the processor too
            registry = open_database(f"{number}-{look}.db", durability="normal")
            seconds = time_import(tmp_path, registry, f"{log} {number}-{look}", make())
            if seconds < TIMES * usual:
                break
        assert seconds < TIMES * usual, f"{name}: {seconds:.2f} s, a plain log {usual:.3f} s"
        stored_bytes, stored_rows = _stored_size(registry)
        assert stored_bytes < allowed_bytes and stored_rows < allowed_rows, name


def _stored_size(registry: Registry) -> tuple[int, int]:
    """Return the bytes and rows that an import of one job has left."""
    with registry.engine.store.read() as tx:
        rows = [
            *tx.all(LEGACY.legacy_lines, first=1, last=1),
            *tx.all(LEGACY.legacy_payloads, job=1),
            *tx.all(LEGACY.legacy_job, job_id="j"),
        ]
    return sum(len(value) for row in rows for value in row if isinstance(value, str | bytes)), len(rows)


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        (b",".join([b'"a":1'] * 40_000), DamageKind.DUPLICATE_KEY),
        (b",".join(b'"%d":1' % number for number in range(40_000)) + b',"7":1', DamageKind.DUPLICATE_KEY),
        (b'"a":' + b"9" * 250_000, DamageKind.HUGE_NUMBER),
        (b'"a":1e' + b"9" * 250_000, DamageKind.HUGE_NUMBER),
        (b'"a":' + b"[" * 250_000, DamageKind.TOO_DEEP),
        (b'"a":' + b'{"a":' * 50_000, DamageKind.TOO_DEEP),
        (b'"a":"' + b"\\ud800" * 40_000 + b'"', DamageKind.LONE_SURROGATE),
        (b'"jobdb_state":{"version":1,"kid":9,"keys":[' + b",".join([b"{}"] * 80_000) + b"]}", DamageKind.BAD_STATE),
    ],
    ids=lambda value: value.decode()[:12] if isinstance(value, bytes) else str(value),
)
def test_an_invalid_record_is_refused_early(member: bytes, kind: DamageKind) -> None:
    prefix = json.dumps(RECORD).encode()[:-1]
    usual = prefix + b',"notes":[' + b",".join([b'"some text of a note"'] * (len(member) // 22)) + b"]}"
    for _ in range(3):
        began = time.process_time()
        parse_record(usual, "j.json")
        expected = max(0.01, time.process_time() - began)
        began = time.process_time()
        answer = parse_record(prefix + b"," + member + b"}", "j.json")
        seconds = time.process_time() - began
        assert getattr(answer, "kind", None) is kind
        if seconds < TIMES * expected:
            break
    assert seconds < TIMES * expected, f"{seconds:.3f} s, {expected:.3f} s for a plain record of that size"


def test_a_log_of_line_breaks_uses_little_memory(tmp_path: Path, registry: Registry) -> None:
    jobs = tmp_path / "w" / ".mam" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "j.json").write_text(json.dumps(RECORD))
    (jobs / "j.events.log").write_bytes(b"\n" * (1 << 22))
    tracemalloc.start()
    try:
        import_registry(registry, jobs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * (1 << 22)  # the log and a few copies, not 8 bytes and a row for each line
