"""Test the migration of a version 6 database: refused with the command, migrated, and its running jobs can ask."""

from __future__ import annotations

from typing import Any

import pytest

from jobdb import EventKind, JobStatus, Registry, SchemaMismatch
from jobdb.engines.sql.sealer import token_binding
from tests.support.keys import TOKEN, vault
from tests.support.old_schema import create_old_database

NOW_MS = 1_790_000_000_000
LATER_MS = NOW_MS * 2


def rows() -> list[str]:
    """Return the rows of version 6: a leased job, and one whose last event demands a permission."""
    columns = (
        "INSERT INTO jobs (id, job_id, status, agent, topic_prefix, timeout_sec, idle_timeout_sec, kid, last_seq, "
    )
    columns += "attempt, worker, lease_until_ms, created_ms, updated_ms, started_ms, last_event, last_event_ms) VALUES "
    times = f"{NOW_MS}, {NOW_MS}, {NOW_MS}"
    inserts = [
        columns + f"(1, 'leased', 'running', 'a', 't/1', 0, 0, 1, 0, 1, 'w', {LATER_MS}, {times}, NULL, NULL)",
        columns + f"(2, 'asking', 'running', 'a', 't/2', 0, 9, 1, 3, 1, 'w', NULL, {times}, "
        f"'permission_required', {NOW_MS})",
    ]
    for number, name in ((1, "leased"), (2, "asking")):
        sealed = vault().seal(TOKEN, bound_to=token_binding(name, 1)).hex()
        inserts.append(f"INSERT INTO specs (job, prompt) VALUES ({number}, 'p')")
        inserts.append(f"INSERT INTO tokens (job, kid, sealed, created_ms) VALUES ({number}, 1, X'{sealed}', {NOW_MS})")
    inserts.append(f"INSERT INTO settings (name, value) VALUES ('key_id', '{vault().key_id}')")
    return inserts


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_jobs_of_version_6_can_ask(
    engine: str, tmp_path: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, migrate = create_old_database(engine, 6, tmp_path, request, monkeypatch, statements=rows())
    with pytest.raises(SchemaMismatch, match="migrate"):
        Registry.open(url)
    migrate()
    with Registry.open(url, vault=vault()) as registry:
        assert registry.questions(open_only=False) == []
        # A permission that was demanded before there were questions still protects from the idle limit.
        assert registry.reap() == [] and registry.get("asking").status is JobStatus.RUNNING
        question = registry.ask("leased", "May I?", key="k", attempt=1)
        assert registry.questions() == [question] and question.seq == 1
        registry.answer("leased", "allow", by="ann")
        assert registry.wait_for_answer("leased", "k", attempt=1).is_allowed
        assert [event.event for event in registry.events("leased")] == [
            EventKind.PERMISSION_REQUIRED,
            EventKind.PROGRESS,
        ]
