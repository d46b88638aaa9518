"""Test the context file: an agent that is tried again learns of the attempts before it, and of no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobdb import Broker, Registry
from jobdb.model import Claim, GiveBack, NewEvent, WorkBatch, WorkerInfo
from jobdb.work.context import build_context
from jobdb.work.logs import make_log_folder

HERE = WorkerInfo(
    worker_id="w1", name="host1:4711", agent=None, host="host1", machine="", boot_id="", pid_namespace="", pid=4711,
    pid_started=1, slots=2, log_dir=None, lease_sec=60,
)  # fmt: skip


@pytest.fixture
def registry(database: Path) -> Iterator[Registry]:
    with Registry.open(database) as opened:
        opened.add_worker(HERE)
        yield opened


def claim(registry: Registry, log_dir: Path | None, *, announce: bool = False) -> Claim:
    folder = None if log_dir is None else str(log_dir)
    batch = WorkBatch(worker_id="w1", worker="host1:4711", claim=1, log_dir=folder, announce=announce)
    (claimed,) = registry.work_batch(batch).claims
    return claimed


def give_back(registry: Registry, job_id: str, attempt: int, reason: str) -> None:
    back = GiveBack(job_id=job_id, attempt=attempt, reason=reason)
    assert registry.work_batch(WorkBatch(worker_id="w1", give_back=(back,))).refused == {}


def context(registry: Registry, claimed: Claim) -> Any:
    return json.loads(build_context(registry, claimed.job))


def test_a_first_attempt_has_the_record_of_its_job(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sört 💥", job_id="sort-1", extra={"branch": "x"})
    claimed = claim(registry, tmp_path)
    text = build_context(registry, claimed.job)
    assert "sört 💥" in text and text.endswith("}\n")
    assert json.loads(text) == {
        "schema_version": 1,
        "job": claimed.job.as_dict(),
        "attempt": 1,
        "reason": None,
        "answers": [],
        "earlier_attempts": [],
    }


def test_a_later_attempt_learns_of_those_before_it(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="sort-1")
    first = claim(registry, tmp_path)
    make_log_folder(f"{tmp_path}/sort-1/1.log")
    (tmp_path / "sort-1" / "1.log").write_bytes(b"".join(b"line %d\n" % number for number in range(100)) + b"\xff")
    events = [NewEvent(job_id="sort-1", event="progress", detail=f"step {n}", attempt=1) for n in (1, 2)]
    registry.publish_many(events)
    give_back(registry, "sort-1", 1, "exit code 1")
    claim(registry, None)
    give_back(registry, "sort-1", 2, "the worker drains")
    found = context(registry, claim(registry, tmp_path))
    assert found["attempt"] == 3 and found["reason"] == "the worker drains"
    assert found["earlier_attempts"] == [
        {
            "attempt": 1,
            "worker": "host1:4711",
            "host": "host1",
            "started_at": registry.attempts("sort-1")[0].as_dict()["started_at"],
            "log": f"{tmp_path}/sort-1/1.log",
            "last_event": {
                "seq": 2,
                "event": "progress",
                "timestamp": registry.events("sort-1")[1].timestamp,
                "detail": "step 2",
            },
            "log_tail": "".join(f"line {number}\n" for number in range(61, 100)) + "\N{REPLACEMENT CHARACTER}",
            "session": None,
        },
        {
            "attempt": 2,
            "worker": "host1:4711",
            "host": "host1",
            "started_at": registry.attempts("sort-1")[1].as_dict()["started_at"],
            "log": None,
            "last_event": None,
            "log_tail": None,
            "session": None,
        },
    ]
    assert first.attempt == 1


def test_a_later_attempt_learns_of_the_session_and_the_answers(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="sort-1")
    claim(registry, tmp_path)
    registry.publish("sort-1", "started", data={"agent": "codex", "session": "s-1"}, attempt=1)
    registry.ask("sort-1", "May I delete build/?", key="delete", attempt=1)
    registry.ask("sort-1", "May I push?", key="push", attempt=1)
    registry.answer("sort-1", "deny", by="ann", key="delete", message="keep it")
    give_back(registry, "sort-1", 1, "exit code 1")
    found = context(registry, claim(registry, tmp_path))
    assert [earlier["session"] for earlier in found["earlier_attempts"]] == ["s-1"]
    (answer,) = found["answers"]
    assert answer.pop("answered_at").endswith("Z")
    assert answer == {
        "key": "delete", "attempt": 1, "text": "May I delete build/?", "answer": "deny", "message": "keep it",
        "answered_by": "ann",
    }  # fmt: skip


def test_the_reason_survives_the_event_that_announces_the_attempt(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="sort-1")
    assert context(registry, claim(registry, tmp_path, announce=True))["reason"] is None
    give_back(registry, "sort-1", 1, "exit code 1")
    second = claim(registry, tmp_path, announce=True)
    assert second.job.detail == "attempt 2, after: exit code 1"
    assert context(registry, second)["reason"] == "exit code 1"
    assert registry.events("sort-1")[1].data["after"] == "exit code 1"


def test_attempts_by_others_are_known_by_their_events(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="sort-1")
    by_hand = registry.claim(worker="me")
    assert by_hand is not None
    registry.publish("sort-1", "progress", detail="x" * 5000, attempt=1)
    registry.release("sort-1", attempt=1)
    (earlier,) = context(registry, claim(registry, tmp_path))["earlier_attempts"]
    assert earlier["worker"] is None and earlier["log_tail"] is None
    assert len(earlier["last_event"]["detail"]) == 1000


def test_the_context_is_bounded(registry: Registry, tmp_path: Path) -> None:
    registry.register(agent="codex", prompt="sort", job_id="sort-1")
    for attempt in range(1, 14):
        claimed = claim(registry, tmp_path)
        make_log_folder(f"{tmp_path}/sort-1/{attempt}.log")
        (tmp_path / "sort-1" / f"{attempt}.log").write_bytes(b"x" * 100_000)
        registry.publish_many([NewEvent(job_id="sort-1", event="progress", detail="d" * 2000, attempt=attempt)] * 200)
        give_back(registry, "sort-1", attempt, "again")
    claimed = claim(registry, tmp_path)
    text = build_context(registry, claimed.job)
    found = json.loads(text)
    assert [one["attempt"] for one in found["earlier_attempts"]] == list(range(4, 14))
    assert all(len(one["log_tail"]) == 4096 for one in found["earlier_attempts"])
    assert [one["last_event"] is None for one in found["earlier_attempts"]] == [True] * 5 + [False] * 5
    assert len(text) < 100_000


def test_no_secret_is_in_the_context(registry: Registry, tmp_path: Path) -> None:
    registry.register(
        agent="codex", prompt="sort", job_id="sort-1", broker=Broker("broker", username="me"),
        broker_password="geheim-1",
    )  # fmt: skip
    token = registry.tokens.show("sort-1", kid=1)
    claim(registry, tmp_path)
    give_back(registry, "sort-1", 1, "again")
    text = build_context(registry, claim(registry, tmp_path).job)
    assert token not in text and "geheim-1" not in text
