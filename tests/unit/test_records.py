"""Test the public records: equal by all fields, always hashable, and shown on one line without secrets."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from jobdb import (
    Acceptance,
    Arrival,
    Broker,
    Claim,
    Event,
    EventKind,
    InvalidInput,
    Job,
    JobStatus,
    NewEvent,
    NewJob,
    Page,
    Reaped,
    Refusal,
    Registry,
    Subscription,
    TokenInfo,
    Vault,
    Verdict,
)
from jobdb.model import Delivery, JobFilter

AT = datetime(2026, 6, 19, 9, 32, tzinfo=UTC)
BIG = "x\n" * 2_000_000
SECRET = "geheim-geheim-geheim"

JOB = Job(
    job_id="sort-1", status=JobStatus.RUNNING, agent="codex", agent_session=None, prompt=BIG, priority=0,
    topic_prefix="jobs/sort-1", broker=Broker("mq", has_password=True), timeout_sec=0, idle_timeout_sec=0,
    expected_artifacts=("out.txt",), last_seq=2, attempt=1, strikes=0, worker="w", lease_expires_at=AT, created_at=AT,
    updated_at=AT, started_at=AT, finished_at=None, last_event=EventKind.PROGRESS, last_event_at=AT, detail=BIG,
    auth="required", extra={"list": [1, {"deep": [BIG]}]},
)  # fmt: skip
EVENT = Event(
    job_id="sort-1", seq=2, event=EventKind.PROGRESS, timestamp="2026-06-19T09:32:00Z", detail=BIG,
    data={"pct": 10, "many": [BIG] * 3}, attempt=1, recorded_at=AT, payload=BIG,
)  # fmt: skip
RECORDS: list[Any] = [
    JOB,
    EVENT,
    NewJob(
        agent="codex", prompt=BIG, extra={"a": [BIG]}, expected_artifacts=["out.txt"], broker_password=SECRET,
        auth_token=SECRET,
    ),
    NewEvent(job_id="sort-1", event="progress", detail=BIG, data={"a": [BIG]}),
    Claim(JOB, 1, "w", AT),
    Acceptance(Verdict.ACCEPTED, "sort-1", 2, EVENT, range(1, 2)),
    Arrival({"seq": 1, "data": {"hmac_sig": SECRET}}, "jobs/sort-1/events"),
    Subscription("s", "sort-1", JobStatus.RUNNING, 0, 2, 1, 2, AT),
    Refusal(7, "sort-1", "s", Verdict.REPLAYED, 1, AT, "seq 1 was skipped"),
    TokenInfo("sort-1", 1, AT, None, None, False, "current"),
    Delivery(1, "sort-1", 2, EventKind.PROGRESS, "jobs/sort-1/events", BIG),
    Broker("mq", 8883, tls=True, username="me", has_password=True),
    Reaped("sort-1", "returned", "its lease expired"),
    JobFilter(statuses=(JobStatus.PENDING,)),
]  # fmt: skip
named = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


@named
def test_a_record_is_hashable_and_equal_to_its_copy(record: Any) -> None:
    for other in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record)), replace(record)):
        assert other == record and hash(other) == hash(record)
        assert len({record, other}) == 1 and {record: 1}[other] == 1


@named
def test_a_record_is_shown_on_one_short_line_without_secrets(record: Any) -> None:
    shown = repr(record)
    assert shown.startswith(f"{type(record).__name__}(") and shown.endswith(")")
    assert "\n" not in shown and len(shown) < 600 and SECRET not in shown and "datetime" not in shown
    assert shown == f"{record}" == str(record)


def test_records_that_differ_in_a_mapping_are_not_equal() -> None:
    other = replace(JOB, extra={"list": []})
    assert other != JOB and hash(other) == hash(JOB) and len({JOB, other}) == 2
    assert replace(EVENT, data={}) != EVENT and replace(JOB, prompt="other") != JOB


def test_the_repr_of_a_job_shows_its_main_fields() -> None:
    assert repr(replace(JOB, prompt="sort ten problems")) == (
        "Job(job_id='sort-1', status='running', agent='codex', attempt=1, last_seq=2, prompt='sort ten problems')"
    )
    assert repr(RECORDS[4]) == "Claim(job_id='sort-1', attempt=1, worker='w', lease_expires_at=2026-06-19T09:32:00Z)"
    assert repr(NewJob(agent="a", prompt="p", priority=10**5000)).count("<int>") == 1


def test_an_event_name_is_converted_to_its_kind() -> None:
    assert NewEvent(job_id="j", event="progress").event is EventKind.PROGRESS
    assert NewEvent(job_id="j", event=EventKind.ERROR).event is EventKind.ERROR
    for unknown in ("progres", None, ["progress"]):
        assert NewEvent(job_id="j", event=unknown).event == unknown  # type: ignore[arg-type]


def test_a_page_is_a_list_with_a_cursor() -> None:
    page: Page[int, str] = Page([1, 2])
    page.has_more, page.next_after = True, "2"
    for other in (copy.copy(page), copy.deepcopy(page), pickle.loads(pickle.dumps(page))):
        assert other == [1, 2] and type(other) is Page and (other.has_more, other.next_after) == (True, "2")
    assert Page() == [] and not Page().has_more


@pytest.mark.parametrize("value", ["out.txt", b"out.txt", bytearray(b"out.txt")])
def test_a_single_string_is_refused_as_a_list_of_artifacts(tmp_path: Any, value: Any) -> None:
    with Registry.open(tmp_path / "jobs.db", create=True, vault=Vault.open(env={"JOBDB_KEY": "42" * 32})) as registry:
        for call in (
            lambda: registry.register(agent="a", prompt="p", expected_artifacts=value),
            lambda: registry.register_many([NewJob(agent="a", prompt="p", expected_artifacts=value)]),
        ):
            with pytest.raises(InvalidInput, match=r"must be a list of paths, not a single \w+; put it into a list"):
                call()
        assert registry.jobs() == []
