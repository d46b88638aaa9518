"""Write a registry in the old scripts' format: records, event logs, audit logs, signed events, some damaged files.

``examples/legacy-registry`` was written by this script without arguments; the tests write larger ones with
``write_registry``. All data is synthetic, including tokens and passwords, and the same arguments write the same bytes.

    python examples/make_legacy_registry.py [FOLDER] [--jobs N] [--damaged N] [--seed N] [--layout .mam|.hermes]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FIRST_DAY = datetime(2026, 6, 19, 9, 30, tzinfo=UTC)
AGENTS = ("claude-code", "codex", "hermes-agent", "agy-agent", "cline-agent", "human")
STATUSES = ("completed", "pending", "running", "completed", "error", "cancelled", "completed", "pending")
PROMPTS = (
    "Write unit tests for parser.py\nKeep the existing fixtures.",
    "Review the branch fix/lock and answer PASS, or list what must change",
    'Translate README.md into Japanese (日本語), keep the code blocks: `a "quoted" \\ word`',
    "Sort the ten problems by how hard they are",
    "Profile the import; a flame graph and three sentences",
    "Find out why the nightly build is red\ttab, \u2028 separator, emoji 🧪 included",
)
LAST_DETAIL = {"completed": "all artifacts written", "error": "the agent exited with a non-zero status"}


def write_registry(
    folder: Path,
    *,
    jobs: int = 12,
    damaged: int = 2,
    leftovers: int = 1,
    seed: int = 1,
    layout: str = ".mam",
    logs: bool = True,
) -> Path:
    """Write a registry into ``folder`` and return its folder of records.

    Args:
        folder: the workspace; created if missing.
        jobs: the number of valid records.
        damaged: the number of damaged records, of the kinds of `damaged_files` in turn.
        leftovers: the number of temporary files that a writer left behind.
        seed: the seed of the random data.
        layout: ``.mam`` or ``.hermes``.
        logs: also write event logs and audit logs.
    """
    rng = random.Random(seed)
    records = folder / layout / "jobs"
    records.mkdir(parents=True, exist_ok=True)
    (records / ".lock").touch()
    for number in range(jobs):
        record = make_record(rng, number)
        job_id = record["job_id"]
        events = list(make_events(rng, record)) if logs else []
        record["last_seq"] = len(events)
        (records / f"{job_id}.json").write_bytes(encode_record(rng, record))
        if not logs:
            continue
        lines = "".join(json.dumps(event) + "\n" for event in events)
        if events and number % 5 != 4:
            (records / f"{job_id}.events.log").write_text(lines, "utf-8")
        if number % 3 != 2:
            write_audit(folder / layout / "delegate_job_logs" / job_id, record, lines)
    for number, (name, content) in zip(range(damaged), damaged_files(), strict=False):
        (records / f"{name}{number // 6 or ''}.json").write_bytes(content)
    for number in range(leftovers):
        (records / f".a1b2c3d{number}.json.tmp").write_bytes(b'{"half": ')
    return records


def make_record(rng: random.Random, number: int) -> dict[str, Any]:
    """Return a valid record: in new and old shapes, with and without token, broker password and unknown fields."""
    job_id = f"{rng.getrandbits(32):08x}"
    status = STATUSES[number % len(STATUSES)]
    agent = AGENTS[rng.randrange(len(AGENTS))]
    created = FIRST_DAY + timedelta(minutes=37 * number, seconds=rng.randrange(60))
    updated = created if status == "pending" else created + timedelta(minutes=rng.randrange(2, 50))
    record: dict[str, Any] = {
        "schema_version": 1,
        "job_id": job_id,
        "status": status,
        "created_at": format_timestamp(created),
        "updated_at": format_timestamp(updated),
        "prompt": f"{PROMPTS[number % len(PROMPTS)]} ({number + 1})",
        "agent": agent,
        "agent_session": None if agent == "human" else f"tmux:{agent}-{number % 3}",
        "broker": make_broker(rng, number, job_id),
        "topic_prefix": f"python/mqtt/jobs/{job_id}",
        "timeout_sec": rng.choice((600, 3600, 7200)),
        "idle_timeout_sec": rng.choice((60, 120)),
        "expected_artifacts": rng.choice(([], ["report.md"], ["out/results.json", "README.ja.md"])),
        "last_seq": 0,
        "auth_token": secret_text(f"token {job_id}", 32) if number % 2 == 0 else None,
    }
    if number % 8 == 3:
        for name in ("idle_timeout_sec", "expected_artifacts", "auth_token"):
            del record[name]
    if number % 6 == 1:
        record |= {"type": "review", "reviewer": "codex", "max_rounds": 3}
    if number % 7 == 2:
        record |= {
            "role": "implementer",
            "notes": {"links": ["a", "b"], "cost": 1.5, "ok": True, "none": None},
        }
    return record


def make_broker(rng: random.Random, number: int, job_id: str) -> dict[str, Any]:
    """Return a broker's settings: public, with a password, or in the oldest, shortest shape."""
    if number % 4 == 3:
        return {"host": "localhost", "port": 1883}
    if number % 4 == 1:
        password = secret_text(f"password {job_id}", 9)
        return {"host": "mqtt.example", "port": 8883, "tls": True, "username": "agent", "password": password}
    return {"host": "localhost", "port": 1883, "tls": False, "username": None, "password": None}


def make_events(rng: random.Random, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the wire events that lead to the record's status, signed if the job has a token."""
    if record["status"] == "pending":
        return
    kinds = [
        "started",
        *rng.choices(("progress", "progress", "permission_required"), k=rng.randrange(4)),
    ]
    if record["status"] in LAST_DETAIL:
        kinds.append(record["status"])
    created = datetime.fromisoformat(record["created_at"])
    for seq, kind in enumerate(kinds, 1):
        data: dict[str, Any] = {"pct": 100 * seq // (len(kinds) + 1)} if kind == "progress" else {}
        event = {
            "schema_version": 1,
            "seq": seq,
            "job_id": record["job_id"],
            "event": kind,
            "timestamp": format_timestamp(created + timedelta(seconds=20 * seq)),
            "detail": LAST_DETAIL.get(kind, f"step {seq} of {len(kinds)}"),
            "data": data,
        }
        if record.get("auth_token"):
            data["hmac_sig"] = legacy_signature(event, record["auth_token"])
        yield event


def write_audit(folder: Path, record: dict[str, Any], lines: str) -> None:
    """Write the durable audit log of a job."""
    folder.mkdir(parents=True, exist_ok=True)
    first = {"event": "registered", "job_id": record["job_id"], "timestamp": record["created_at"]}
    meta = {name: value for name, value in record.items() if name not in ("broker", "auth_token")}
    status = {name: record[name] for name in ("job_id", "status", "updated_at")}
    (folder / "events.ndjson").write_text(json.dumps(first) + "\n" + lines, "utf-8")
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")
    (folder / "status.json").write_text(json.dumps(status), "utf-8")


def damaged_files() -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of damaged records, endlessly, six kinds in turn."""
    valid = {
        "schema_version": 1,
        "status": "pending",
        "created_at": "2026-06-19T09:30:00Z",
        "updated_at": "2026-06-19T09:30:00Z",
        "prompt": "x",
        "agent": "codex",
        "agent_session": None,
        "broker": {"host": "localhost", "port": 1883},
        "topic_prefix": "python/mqtt/jobs/x",
        "last_seq": 0,
    }
    while True:
        yield "bad0cut5", json.dumps({"job_id": "bad0cut5"} | valid).encode()[:60]
        yield "bad0stat", json.dumps(valid | {"job_id": "bad0stat", "status": "paused"}).encode()
        yield "bad0none", b""
        yield "bad000id", json.dumps({"job_id": "somebody"} | valid).encode()
        yield "bad0next", json.dumps(valid | {"job_id": "bad0next", "schema_version": 2}).encode()
        yield "bad0utf8", b'{"job_id": "bad0utf8", "prompt": "\xff\xfe"}'


def legacy_signature(event: dict[str, Any], token: str) -> str:
    """Return the signature of the old agents: over sorted, compact JSON with ASCII escapes."""
    message = json.dumps(event, sort_keys=True, separators=(",", ":")).encode("ascii")
    return hmac.new(token.encode("utf-8"), message, hashlib.sha256).hexdigest()


def encode_record(rng: random.Random, record: dict[str, Any]) -> bytes:
    """Return the record's bytes in one of the formats in which the old scripts wrote JSON."""
    indent = rng.choice((2, 2, None))
    return json.dumps(record, indent=indent, ensure_ascii=rng.random() < 0.7).encode("utf-8")


def secret_text(name: str, length: int) -> str:
    """Return a synthetic secret that looks like ``secrets.token_urlsafe(length)`` and is the same every time."""
    digest = hashlib.sha256(f"made up: {name}".encode()).digest()[:length]
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def format_timestamp(time: datetime) -> str:
    """Return a time in the format of the old scripts."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    """Write the registry that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write a registry of synthetic data in the old format.")
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "legacy-registry")
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--damaged", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layout", choices=(".mam", ".hermes"), default=".mam")
    arguments = parser.parse_args()
    records = write_registry(
        arguments.folder, jobs=arguments.jobs, damaged=arguments.damaged, seed=arguments.seed, layout=arguments.layout
    )
    print(f"{arguments.jobs} jobs and {arguments.damaged} damaged records in {records}")


if __name__ == "__main__":
    main()
