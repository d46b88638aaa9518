"""Test that any valid record is equal as JSON after import and export."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobdb import Registry
from jobdb.core.protocol.topics import topic_prefix_error
from jobdb.legacy import Outcome, export_registry, import_registry
from jobdb.legacy.format.timestamps import format_time

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
IDS = st.from_regex(re.compile(r"[a-z0-9_][a-z0-9_.-]{0,12}"), fullmatch=True)
TIMES = st.integers(0, 4 * 10**9).map(lambda second: format_time(second * 1000))
OURS = {"agent_session", "timeout_sec", "idle_timeout_sec", "expected_artifacts", "auth_token"}


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    broker = draw(
        st.fixed_dictionaries(
            {"host": TEXT, "port": st.integers(0, 65535)},
            optional={"tls": st.booleans(), "username": st.none() | TEXT, "password": st.none() | TEXT, "ca": JSON},
        )
    )
    needed = {
        "schema_version": 1,
        "job_id": draw(IDS),
        "status": draw(st.sampled_from(["pending", "running", "completed", "error", "cancelled"])),
        "created_at": draw(TIMES),
        "updated_at": draw(TIMES),
        "prompt": draw(TEXT),
        "agent": draw(TEXT),
        "broker": draw(st.sampled_from([None, broker])),
        "topic_prefix": draw(TEXT.filter(lambda text: topic_prefix_error(text) is None)),
        "last_seq": draw(st.integers(0, 2**53 - 1)),
    }
    rest = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "agent_session": st.none() | TEXT,
                "timeout_sec": st.sampled_from([3600, 0, 2**53 - 1]),
                "idle_timeout_sec": st.sampled_from([120, 7]),
                "expected_artifacts": st.lists(TEXT, max_size=2),
                "auth_token": st.none() | TEXT,
            },
        )
    )
    extra = draw(st.dictionaries(TEXT, JSON, max_size=2))
    return needed | rest | {key: value for key, value in extra.items() if key not in needed and key not in OURS}


@given(st.lists(records(), min_size=1, max_size=6, unique_by=lambda record: record["job_id"].lower()))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_registry_survives_import_and_export(found: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source" / "jobs"
        source.mkdir(parents=True)
        for record in found:
            (source / f"{record['job_id']}.json").write_text(json.dumps(record))
        with Registry.open(folder / "jobs.db", create=True, durability="normal") as registry:
            assert import_registry(registry, source).counts[Outcome.IMPORTED] == len(found)
            assert import_registry(registry, source).counts[Outcome.UNCHANGED] == len(found)
            export_registry(registry, folder / "copy", with_secrets=True)
        for record in found:
            copy = json.loads((folder / "copy" / ".mam" / "jobs" / f"{record['job_id']}.json").read_bytes())
            assert json.dumps(copy, sort_keys=True) == json.dumps(record, sort_keys=True)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.lists(st.binary(max_size=80), max_size=3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_invalid_bytes_neither_stop_an_import_nor_become_a_job(files: list[bytes], logs: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "jobs"
        source.mkdir()
        for number, content in enumerate(files):
            (source / f"job{number}.json").write_bytes(content)
        for number, content in enumerate(logs):
            (source / f"job{number}.events.log").write_bytes(content)
        with Registry.open(Path(name) / "jobs.db", create=True, durability="normal") as registry:
            report = import_registry(registry, source)
            assert report.counts[Outcome.IMPORTED] == 0
            assert report.counts[Outcome.DAMAGED] >= len(files)
            assert registry.jobs() == []
