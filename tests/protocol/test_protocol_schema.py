"""Test the JSON Schemas: valid, and in agreement with the code."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from jobdb.core import protocol
from jobdb.core.protocol import parse, verify
from jobdb.model import Broker, EventKind, Job, JobStatus
from tests.support.paths import SCHEMA

EVENT: dict[str, Any] = json.loads((SCHEMA / "event.schema.json").read_text())
JOB: dict[str, Any] = json.loads((SCHEMA / "job.schema.json").read_text())
NOW = datetime(2026, 6, 19, 9, 32, tzinfo=UTC)


@pytest.mark.parametrize("schema", [EVENT, JOB], ids=["event", "job"])
def test_each_schema_is_valid(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_limits_are_those_of_the_code() -> None:
    fields = EVENT["properties"]
    assert fields["schema_version"]["const"] == protocol.SCHEMA_VERSION
    assert fields["seq"]["maximum"] == fields["data"]["properties"]["attempt"]["maximum"] == protocol.MAX_SEQ
    assert fields["data"]["properties"]["hmac_kid"]["maximum"] == protocol.MAX_KID
    assert fields["detail"]["maxLength"] == protocol.MAX_DETAIL_CHARS
    assert fields["event"]["enum"] == [kind.value for kind in EventKind]
    whole = "^{}(?!\\n)$".format
    assert fields["job_id"]["pattern"] == JOB["properties"]["job_id"]["pattern"] == whole(protocol.JOB_ID_PATTERN)
    assert fields["timestamp"]["pattern"] == whole(protocol.TIMESTAMP_PATTERN)
    assert f"{{0,{protocol.MAX_JOB_ID_CHARS - 1}}}" in protocol.JOB_ID_PATTERN
    for number in (protocol.MAX_PAYLOAD_BYTES, protocol.MAX_DEPTH, protocol.MAX_VALUES):
        assert re.search(rf"\b{number}\b", EVENT["description"])


def test_the_example_is_a_signed_event() -> None:
    vectors = json.loads((SCHEMA / "vectors.json").read_text())
    token = vectors["contexts"]["claimed"]["tokens"][0]["token"]
    for example in EVENT["examples"]:
        jsonschema.validate(example, EVENT)
        assert verify(parse(example), token)


def job(**changes: Any) -> Job:
    pending = Job(
        job_id="abc12345", status=JobStatus.PENDING, agent="codex", agent_session=None, prompt="", priority=0,
        topic_prefix="jobdb/jobs/abc12345", broker=None, timeout_sec=3600, idle_timeout_sec=120, expected_artifacts=(),
        last_seq=0, attempt=0, strikes=0, worker=None, lease_expires_at=None, created_at=NOW, updated_at=NOW,
        started_at=None, finished_at=None, last_event=None, last_event_at=None, detail=None, auth="required",
    )  # fmt: skip
    return dataclasses.replace(pending, **changes)


BROKER = Broker("localhost", 8883, True, "me", True)
ENDED: dict[str, Any] = {
    "status": JobStatus.COMPLETED,
    "finished_at": NOW.replace(microsecond=123000),
    "started_at": NOW,
    "last_event": EventKind.COMPLETED,
    "last_event_at": NOW,
    "broker": BROKER,
    "expected_artifacts": ("out/a.txt",),
    "extra": {"role": "reviewer"},
    "auth": "never",
}


@pytest.mark.parametrize("changes", [{}, ENDED, {"status": JobStatus.RUNNING, "worker": "w", "lease_expires_at": NOW}])
def test_a_job_record_is_valid(changes: dict[str, Any]) -> None:
    record = job(**changes).as_dict()
    jsonschema.validate(record, JOB)
    assert set(record) == set(JOB["properties"]) == set(JOB["required"])
    assert set(BROKER.as_dict()) == set(JOB["$defs"]["broker"]["properties"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "done"},
        {"status": "completed"},
        {"finished_at": "2026-06-19T09:32:00Z"},
        {"job_id": "a/b"},
        {"auth": "token"},
        {"created_at": "2026-06-19 09:32"},
        {"created_at": None},
        {"last_seq": -1},
        {"broker": {"host": "localhost"}},
        {"last_event": "cancelled"},
    ],
    ids=str,
)
def test_an_invalid_job_record_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**job().as_dict(), **wrong}, JOB)
