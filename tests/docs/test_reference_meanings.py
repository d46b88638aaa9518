"""Test that fields mean what the reference says."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry, StaleAttempt
from jobdb.doctor.findings import Finding
from jobdb.filesystem.probe.report import Check
from jobdb.work import transitions
from tests.docs.commands import root_command
from tests.support.clocks import ManualClock
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "reference" / "json-output.md").read_text("utf-8")
SCHEMA = json.loads((ROOT / "schema" / "job.schema.json").read_text("utf-8"))


def commands_with_json() -> set[str]:
    found = set()

    def walk(command: Any, name: str, context: Any) -> None:
        if hasattr(command, "list_commands"):
            for inner in command.list_commands(context):
                walk(command.get_command(context, inner), f"{name} {inner}".strip(), context)
        elif any("--json" in parameter.opts for parameter in command.params):
            found.add(name)

    walk(root_command(), "", root_command().context_class(root_command()))
    return found


def test_every_command_with_json_is_in_the_table() -> None:
    rows = re.findall(r"^\| ((?:`[a-z ]+`(?:, )?)+) \|", PAGE.partition("\n## ")[0], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z ]+)`", row)} == commands_with_json()


def fields(title: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0], re.MULTILINE)


def test_findings_and_checks_have_the_fields_that_are_documented() -> None:
    assert fields("Finding") == list(Finding("a", "ok", "b").as_dict())
    assert fields("Check") == list(Check("a", True, "b").as_dict())


def test_the_transitions_of_a_worker_are_documented_with_all_their_fields() -> None:
    section = PAGE.split("\n## Transition\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", section, re.MULTILINE)
    kinds = {found.kind: found for found in vars(transitions).values() if getattr(found, "kind", "")}
    assert [kind for kind, _fields in rows] == list(kinds)
    for kind, text in rows:
        expected = [each.name for each in dataclasses.fields(kinds[kind])]
        if issubclass(kinds[kind], transitions.OfJob):
            expected = expected[2:]
        assert [name for name in re.findall(r"`(\w+)`", text) if name in expected] == expected, kind


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(tmp_path: Path, clock: ManualClock) -> Any:
    with Registry.open(tmp_path / "jobs.db", create=True, clock=clock) as opened:
        opened.register(agent="a", prompt="p", job_id="one")
        yield opened


def test_started_at_is_the_last_claim_not_the_first(registry: Registry, clock: ManualClock) -> None:
    registry.claim(worker="w", job_id="one", lease_sec=60)
    first = registry.get("one").started_at
    clock.now += 5000
    registry.release("one", attempt=1)
    assert registry.get("one").started_at == first
    registry.claim(worker="w", job_id="one", lease_sec=60)
    again = registry.get("one").started_at
    assert first is not None and again is not None and (again - first).total_seconds() == 5
    clock.now += 2000
    registry.complete("one", attempt=2)
    _columns, rows = registry.engine.store.query("SELECT started_at, duration_sec FROM v_jobs", limit=1, timeout_sec=5)
    assert rows == [(again.strftime("%Y-%m-%dT%H:%M:%SZ"), 2.0)]
    for text in (SCHEMA["properties"]["started_at"]["description"], PAGE):
        assert "claimed last" in text and "first claimed" not in text


def test_a_pending_job_has_no_worker_and_no_valid_claim(registry: Registry) -> None:
    registry.claim(worker="w", job_id="one", lease_sec=60)
    registry.release("one", attempt=1)
    job = registry.get("one")
    assert (job.status, job.attempt, job.worker, job.lease_expires_at) == ("pending", 1, None, None)
    with pytest.raises(StaleAttempt):
        registry.publish("one", "progress", attempt=1)
    event = registry.publish("one", "progress")  # published without a claim: this starts a new attempt
    assert event.attempt == 2 and registry.get("one").attempt == 2


def test_the_worker_of_a_job_that_ended_under_its_claim_stays(registry: Registry) -> None:
    registry.claim(worker="w", job_id="one", lease_sec=60)
    registry.complete("one", attempt=1)
    assert registry.get("one").worker == "w"


def test_last_seq_is_the_highest_and_a_late_end_is_the_last_event(registry: Registry) -> None:
    """The terminal event arrives late, within the window: it ends the job below the highest seq."""
    from jobdb.core.protocol import build
    from jobdb.model import EventKind

    kid, token = registry.tokens.current("one")

    def event(seq: int, kind: EventKind) -> str:
        return build(
            job_id="one",
            seq=seq,
            event=kind,
            timestamp="2026-06-19T09:32:00Z",
            detail="x" * 2000,
            data={},
            attempt=None,
            kid=kid,
            token=token,
        ).text

    assert registry.accept(event(2, EventKind.PROGRESS), subscriber="s").verdict == "accepted"
    assert registry.accept(event(1, EventKind.COMPLETED), subscriber="s", window=5).verdict == "accepted"
    job = registry.get("one")
    assert (job.last_seq, job.last_event, job.status) == (2, "completed", "completed")
    assert job.detail is not None and len(job.detail) == 1000
    assert registry.accept(event(3, EventKind.PROGRESS), subscriber="s").verdict == "after_terminal"


def test_unauthentic_events_are_only_counted_and_refusals_are_listed_up_to_a_bound(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobdb.engines.sql import accept_batch

    monkeypatch.setattr(accept_batch, "MAX_REFUSALS_PER_JOB", 3)

    def count(view: str) -> int:
        return int(registry.engine.store.query(f"SELECT count(*) FROM {view}", limit=1, timeout_sec=5)[1][0][0])

    signed = registry.publish("one", "progress").payload
    assert registry.accept(signed, subscriber="s").verdict == "accepted"
    for number in range(20):
        forged = signed.replace('"seq":1', f'"seq":{number + 2}')
        assert registry.accept(forged, subscriber="s").verdict == "bad_signature"
        assert registry.accept("{}", subscriber="s").verdict == "malformed"
        unknown = signed.replace('"one"', f'"job{number}"')
        assert registry.accept(unknown, subscriber="s").verdict == "unknown_job"
    assert (count("v_verdicts"), count("v_refusals"), count("v_events")) == (3, 0, 1)
    for _ in range(9):
        registry.publish("one", "progress")
    last = registry.events("one")[-1].payload
    assert registry.accept(last, subscriber="s").verdict == "accepted"
    for event in registry.events("one")[1:-1]:
        assert registry.accept(event.payload, subscriber="s").verdict == "replayed"
    assert count("v_refusals") == 3
