"""Test every vector of schema/vectors.json: against the protocol's functions, against the registry, and in Node."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import jsonschema  # type: ignore[import-untyped]
import pytest

from jobdb import Registry
from jobdb.core.protocol import MalformedPayload, UnsupportedVersion, WireEvent, canonical, parse, sign, verify
from jobdb.core.replay import ReplayFacts, check_replay
from jobdb.model import JobStatus, Verdict
from tests.support.clocks import ManualClock
from tests.support.keys import vault
from tests.support.requirements import require_node

HERE = Path(__file__).resolve().parent
SCHEMA = HERE.parents[1] / "schema"
FILE = json.loads((SCHEMA / "vectors.json").read_text("ascii"))
CONTEXTS: dict[str, dict[str, Any]] = FILE["contexts"]
VECTORS: list[dict[str, Any]] = FILE["vectors"]
BY_NAME = {vector["name"]: vector for vector in VECTORS}
each_vector = pytest.mark.parametrize("name", BY_NAME)


def payload_of(vector: dict[str, Any]) -> bytes:
    if "payload" in vector:
        return str(vector["payload"]).encode()
    if "payload_base64" in vector:
        return base64.b64decode(vector["payload_base64"], validate=True)
    return "".join(piece * times for piece, times in vector["payload_parts"]).encode()


def decide(payload: bytes, context: dict[str, Any], topic: str | None) -> tuple[Verdict, tuple[int, int] | None]:
    """Return the verdict in a given context, and the first and last missing seq."""
    try:
        event = parse(payload)
    except MalformedPayload:
        return Verdict.MALFORMED, None
    except UnsupportedVersion:
        return Verdict.UNSUPPORTED_VERSION, None
    if event.job_id != context["job_id"]:
        return Verdict.UNKNOWN_JOB, None
    if topic is not None and topic != context["topic"]:
        return Verdict.WRONG_TOPIC, None
    if context["tokens"]:
        if event.signature is None:
            return Verdict.UNSIGNED, None
        key = next((key for key in context["tokens"] if key["kid"] == event.kid), None)
        if key is None or key["state"] != "valid":
            return Verdict.REVOKED_KEY, None
        if not verify(event, key["token"], legacy=key["legacy"]):
            return Verdict.BAD_SIGNATURE, None
    verdict, _reason = check_replay(facts_of(event, context))
    if verdict is Verdict.ACCEPTED and event.seq > context["last_seq"] + 1:
        return verdict, (context["last_seq"] + 1, event.seq - 1)
    return verdict, None


def facts_of(event: WireEvent, context: dict[str, Any]) -> ReplayFacts:
    recorded = {past.seq: past.digest for past in map(parse, context["recorded"])}
    return ReplayFacts(
        seq=event.seq,
        event_is_terminal=event.event.terminal,
        attempt=event.attempt,
        matches_recorded=recorded[event.seq] == event.digest if event.seq in recorded else None,
        matches_recorded_end=event.seq not in recorded
        and (event.seq, event.event) == (context["ended"], context["status"]),
        start_seq=context["start_seq"],
        last_seq=context["last_seq"],
        skipped=event.seq <= context["last_seq"] and event.seq not in context["accepted"],
        window=context["window"],
        status=JobStatus(context["status"]),
        terminal_seq=context["ended"],
        job_attempt=context["attempt"],
    )


@each_vector
def test_verdict_of_the_protocol(name: str) -> None:
    vector = BY_NAME[name]
    verdict, missing = decide(payload_of(vector), CONTEXTS[vector["context"]], vector.get("topic"))
    assert verdict == vector["verdict"]
    assert missing == (tuple(vector["missing"]) if "missing" in vector else None)


@each_vector
def test_canonical_form_digest_and_signature(name: str) -> None:
    vector = BY_NAME[name]
    if vector["digest"] is None:
        assert vector["verdict"] in ("malformed", "unsupported_version")
        return
    event = parse(payload_of(vector))
    assert event.digest.hex() == vector["digest"] == hashlib.sha256(event.message).hexdigest()
    if vector["canonical"] is not None:
        assert event.message == vector["canonical"].encode()
    keys = [key for key in CONTEXTS[vector["context"]]["tokens"] if key["kid"] == event.kid]
    assert [sign(event.message, key["token"]) for key in keys] == [vector["signature"]] * len(keys)


@each_vector
def test_verdict_of_the_registry(name: str, tmp_path: Path) -> None:
    """Verbs bring the registry into the vector's context, then it gets the payload."""
    vector = BY_NAME[name]
    context = CONTEXTS[vector["context"]]
    clock = ManualClock()
    with Registry.open(tmp_path / "jobs.db", create=True, durability="normal", vault=vault(), clock=clock) as registry:
        prepare(registry, context, clock)
        answer = registry.accept(
            payload_of(vector),
            subscriber="observer",
            topic=vector.get("topic"),
            window=context["window"],
            start="now" if context["start_seq"] else "beginning",
        )
        assert answer.verdict == vector["verdict"], answer.reason
        first, last = vector.get("missing", (1, 0))
        assert answer.missing == range(first, last + 1)
        job = registry.get(context["job_id"])
        if vector["verdict"] != "accepted":
            assert (job.status, job.attempt) == (context["status"], context["attempt"])


def prepare(registry: Registry, context: dict[str, Any], clock: ManualClock) -> None:
    job_id, keys = context["job_id"], context["tokens"]
    registry.register(
        agent="codex",
        prompt="",
        job_id=job_id,
        topic_prefix=context["topic"].removesuffix("/events"),
        auth="required" if keys else "never",
        auth_token=keys[0]["token"] if keys else None,
    )
    if context["attempt"]:
        registry.claim(worker="w", job_id=job_id, lease_sec=None)
    for event in map(parse, context["recorded"]):
        take_over(registry, job_id, until=event.attempt or 0)
        subscriber = "observer" if event.seq in context["accepted"] else "another"
        answer = registry.accept(event.text, subscriber=subscriber)
        assert answer.verdict is Verdict.ACCEPTED, answer
    take_over(registry, job_id, until=context["attempt"])
    for key in keys[1:]:
        registry.tokens.rotate(job_id, overlap_sec=60, token=key["token"])
    for key in keys:
        if key["state"] == "revoked":
            registry.tokens.revoke(job_id, key["kid"])
        elif key["state"] == "expired":
            clock.now += 60_000
    if any(key["legacy"] for key in keys):
        # Only the import makes such a token.
        change(registry, "UPDATE tokens SET imported = 1")
    if context["ended"] is not None and context["status"] != "cancelled" and not context["recorded"]:
        # Only the import makes such a job.
        end = f"status = '{context['status']}', last_seq = {context['ended']}, terminal_seq = {context['ended']}"
        change(registry, f"UPDATE jobs SET {end}, finished_ms = updated_ms")
    if context.get("given_back"):
        registry.release(job_id, attempt=context["attempt"])
    if context["status"] == "cancelled":
        registry.cancel(job_id)
    elif context["status"] == "pending" and context["attempt"]:
        registry.release(job_id, attempt=context["attempt"])
    job = registry.get(job_id)
    assert (job.status, job.attempt) == (context["status"], context["attempt"])


def change(registry: Registry, statement: str) -> None:
    """Change rows by hand, with the registry's SQLite library, so that its locks stay."""
    with contextlib.closing(apsw.Connection(str(registry.url.path))) as connection:
        connection.execute(statement)


def take_over(registry: Registry, job_id: str, *, until: int) -> None:
    """Claim the job repeatedly until it is at that attempt."""
    while (attempt := registry.get(job_id).attempt) < until:
        registry.release(job_id, attempt=attempt)
        registry.claim(worker="w", job_id=job_id, lease_sec=None)


def test_json_schema_agrees() -> None:
    """The schema agrees with the parser on every rule that it can express; the others are marked."""
    validator = jsonschema.Draft202012Validator(json.loads((SCHEMA / "event.schema.json").read_text()))
    seen = {True: 0, False: 0}
    for vector in VECTORS:
        if vector.get("rule") in ("json", "literal") or vector["verdict"] == "unsupported_version":
            continue
        valid = validator.is_valid(json.loads(payload_of(vector)))
        assert valid is (vector["verdict"] != "malformed"), vector["name"]
        seen[valid] += 1
    assert min(seen.values()) > 30


def test_the_vectors_cover_every_verdict_and_context() -> None:
    assert {vector["verdict"] for vector in VECTORS} == set(Verdict)
    assert len(VECTORS) >= 60
    assert {vector["context"] for vector in VECTORS} == set(CONTEXTS)


def test_the_file_is_up_to_date() -> None:
    made = subprocess.run([sys.executable, HERE / "make_vectors.py", "--check"], timeout=60, check=False)
    assert made.returncode == 0, "run tests/protocol/make_vectors.py and look at what changed"


def run_node(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [require_node(), HERE / "verify_vectors.mjs", *arguments]
    return subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=60, check=False)


def test_node_agrees_on_every_vector() -> None:
    done = run_node(SCHEMA / "vectors.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(VECTORS)} vectors agree" in done.stdout


def test_node_writes_the_same_canonical_forms() -> None:
    """Doubles of every magnitude and keys from all over Unicode, against V8's own number and string forms."""
    rng = random.Random(8785)

    def double() -> float:
        while True:
            (number,) = struct.unpack("<d", rng.randbytes(8))
            if math.isfinite(number):
                return float(number)

    def key() -> str:
        return "".join(chr(rng.choice((rng.randrange(128), 0xE000, 0xFFFF, 0x1F600, 0xE9))) for _ in range(3))

    objects = [
        {key(): [double(), rng.random(), rng.randrange(-(2**53) + 1, 2**53), round(rng.uniform(-1e6, 1e6), 3)]}
        | {key(): {key(): 10.0**power} for power in range(-9, 24)}
        for _ in range(1_000)
    ]
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects)
    done = run_node("--canonical", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [canonical(item).decode() for item in objects]


def test_node_detects_a_wrong_vector(tmp_path: Path) -> None:
    for field, wrong in (("verdict", "accepted"), ("signature", "0" * 64), ("canonical", "{}"), ("digest", "0" * 64)):
        changed = json.loads(json.dumps(FILE))
        vector = next(v for v in changed["vectors"] if v["verdict"] == "duplicate")
        vector[field] = wrong
        file = tmp_path / f"{field}.json"
        file.write_text(json.dumps(changed))
        done = run_node(file)
        assert done.returncode == 1
        assert f"{vector['name']}: {field}" in done.stdout
