"""Synthetic jobs and signed events for all adapters, so that all do the same work on the same bytes.

Called by the adapters and the tests. The mix of statuses is that of a registry in use: of each 20 jobs, 14 have ended,
2 are running and 4 are pending. Job ids are random, so the order of the names is not the order of creation.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import time
from collections.abc import Iterator
from typing import Any

AGENTS = ("claude-code", "codex", "hermes-agent")
SUBSCRIBER = "orchestrator"
PAGE = 50
BATCH = 100
_CYCLE = ("completed",) * 12 + ("error", "cancelled") + ("running",) * 2 + ("pending",) * 4


def status_of(number: int) -> str:
    """Return the status of a prepared registry's job by its number."""
    return _CYCLE[number % len(_CYCLE)]


def now_text() -> str:
    """Return the current time as a timestamp."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def token(source: random.Random) -> str:
    """Return a token as long as ``secrets.token_urlsafe(32)``, the same in every prepared registry."""
    return source.randbytes(32).hex()[:43]


def record(source: random.Random, number: int, status: str = "pending") -> dict[str, Any]:
    """Return a job's record as the old registry writes it."""
    job_id = source.randbytes(6).hex()
    now = now_text()
    return {
        "schema_version": 1,
        "job_id": job_id,
        "status": status,
        "created_at": now,
        "updated_at": now,
        "prompt": f"Review the diff of branch fix/lock and answer PASS or list what must change ({number})",
        "agent": AGENTS[number % len(AGENTS)],
        "agent_session": f"tmux:{AGENTS[number % len(AGENTS)]}-{number % 5}",
        "broker": {"host": "localhost", "port": 1883, "tls": False, "username": None, "password": None},
        "topic_prefix": f"python/mqtt/jobs/{job_id}",
        "timeout_sec": 3600,
        "idle_timeout_sec": 120,
        "expected_artifacts": ["sort_problems.md"],
        "last_seq": 0,
        "auth_token": token(source),
    }


def records(size: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the records of a prepared registry with ``size`` jobs, in order of creation."""
    source = random.Random(seed)
    for number in range(size):
        yield record(source, number, status_of(number))


def wire_event(job_id: str, seq: int, kind: str = "progress", **data: Any) -> dict[str, Any]:
    """Return an unsigned wire event."""
    return {
        "schema_version": 1,
        "seq": seq,
        "job_id": job_id,
        "event": kind,
        "timestamp": now_text(),
        "detail": f"step {seq} of 10",
        "data": {"pct": seq % 100, **data},
    }


def canonical(payload: dict[str, Any]) -> bytes:
    """Return the RFC 8785 form, for the simple values used here (ASCII keys, integers)."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign(payload: dict[str, Any], secret: str) -> str:
    """Return the payload on one line with its data.hmac_sig."""
    signature = hmac.new(secret.encode(), canonical(payload), hashlib.sha256).hexdigest()
    payload["data"]["hmac_sig"] = signature
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False)


def verify(line: str, secret: str) -> dict[str, Any] | None:
    """Return the event if its signature is valid."""
    payload: dict[str, Any] = json.loads(line)
    signature = payload["data"].pop("hmac_sig", "")
    expected = hmac.new(secret.encode(), canonical(payload), hashlib.sha256).hexdigest()
    return payload if hmac.compare_digest(signature, expected) else None
