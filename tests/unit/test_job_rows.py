"""Test that a job made from a row equals one made by the constructor."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime

import pytest

from jobdb import Broker, EventKind, Job, JobStatus
from jobdb.engines.sql.job_rows import job_from_row, jobs_from_rows

ENDED = (
    *("0f3a9c2d7b11", "completed", "codex", "tmux:work", "sort", 3, "jobs/x", '{"host": "mq", "port": 8883}', 1, 60, 0),
    *('["a.md"]', 7, 2, 1, "host:1", 5_000, 1_000, 4_004, 2_002, 4_004, "completed", 4_003, "done", 1, '{"k": [1]}', 9),
    *(5, None),
)
FRESH = (
    *("b2", "pending", "codex", None, "", 0, "jobs/y", None, 0, 3600, 120, "[]"),
    *(0, 0, 0, None, None, 1_000, 1_000, None, None, None, None, None, 0, "{}", 10),
    *(None, None),
)
DELAYED = (*FRESH[:-1], 9_000)


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def ended() -> Job:
    return Job(
        job_id="0f3a9c2d7b11",
        status=JobStatus.COMPLETED,
        agent="codex",
        agent_session="tmux:work",
        prompt="sort",
        priority=3,
        topic_prefix="jobs/x",
        broker=Broker("mq", 8883, has_password=True),
        timeout_sec=60,
        idle_timeout_sec=0,
        expected_artifacts=("a.md",),
        last_seq=7,
        attempt=2,
        strikes=1,
        worker="host:1",
        lease_expires_at=at(5_000),
        created_at=at(1_000),
        updated_at=at(4_004),
        started_at=at(2_002),
        finished_at=at(4_004),
        last_event=EventKind.COMPLETED,
        last_event_at=at(4_003),
        detail="done",
        auth="required",
        max_attempts=5,
        not_before=None,
        extra={"k": [1]},
    )


def test_every_field_has_the_value_of_the_row() -> None:
    job = job_from_row(ENDED)
    assert type(job) is Job
    assert job == ended()
    assert repr(job) == repr(ended())
    assert job.terminal


def test_absent_values_of_a_new_job_are_none() -> None:
    job = job_from_row(FRESH)
    missing = {"agent_session", "broker", "worker", "lease_expires_at", "started_at", "finished_at", "last_event"}
    assert {f.name for f in fields(job) if getattr(job, f.name) is None} == missing | {
        *("last_event_at", "detail", "max_attempts", "not_before")
    }
    assert (job.expected_artifacts, job.extra, job.auth) == ((), {}, "never")
    assert job.created_at == job.updated_at == at(1_000)


def test_a_delayed_job_says_when_it_is_due() -> None:
    assert job_from_row(DELAYED).not_before == at(9_000)


def test_jobs_of_a_page_share_no_mutable_value() -> None:
    first, second, third = jobs_from_rows((FRESH, FRESH, ENDED))
    assert first == second
    assert first.extra is not second.extra
    assert third == ended()


def test_a_job_is_frozen_and_can_be_copied_pickled_and_replaced() -> None:
    job = job_from_row(ENDED)
    with pytest.raises(FrozenInstanceError):
        job.detail = "other"  # type: ignore[misc]
    assert not hasattr(job, "__dict__")
    assert pickle.loads(pickle.dumps(job)) == copy.deepcopy(job) == copy.copy(job) == job
    assert replace(job, detail="other").detail == "other"
