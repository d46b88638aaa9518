"""Test import and export on a PostgreSQL server."""

from __future__ import annotations

import json
from pathlib import Path

from jobdb import Registry
from jobdb.legacy import Outcome, export_registry, import_registry
from jobdb.legacy.format.damage import DamageKind
from tests.support.databases import PostgresDatabase


def test_import_and_export_round_trip_on_a_server(
    postgres_database: PostgresDatabase, sample: Path, tmp_path: Path
) -> None:
    with Registry.open(postgres_database.url) as registry:
        dry = import_registry(registry, sample, dry_run=True)
        real = import_registry(registry, sample)
        assert dry.as_dict() | {"dry_run": False} == real.as_dict()
        assert (real.counts[Outcome.IMPORTED], real.counts[Outcome.DAMAGED]) == (200, 6)
        assert import_registry(registry, sample).counts[Outcome.UNCHANGED] == 200
        export_registry(registry, tmp_path / "out", with_secrets=True)
        for path in sample.glob(".mam/jobs/*"):
            copy = tmp_path / "out" / path.relative_to(sample)
            if path.name.endswith(".events.log"):
                assert copy.read_bytes() == path.read_bytes()
            elif copy.exists() and path.suffix == ".json":
                assert json.loads(copy.read_bytes()) == json.loads(path.read_bytes())
        claim = registry.claim(worker="w")
        assert claim is not None
        assert import_registry(registry, sample).counts[Outcome.SKIPPED] == 1


def test_records_that_a_server_cannot_store_are_reported(postgres_database: PostgresDatabase, sample: Path) -> None:
    path = next(path for path in sorted(sample.glob(".mam/jobs/*.json")) if not path.name.startswith("bad"))
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"prompt": "a\0b"}))
    with Registry.open(postgres_database.url) as registry:
        report = import_registry(registry, sample)
        named = [row.file for row in report.rows() if row.damage is DamageKind.NOT_HELD]
        assert named == [path.name]
        assert report.counts[Outcome.IMPORTED] == 199


def test_the_trust_state_of_a_job_survives_a_round_trip_over_a_server(
    postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    state = {
        "version": 1,
        "auth_required": True,
        "kid": 2,
        "keys": [{"kid": 1, "created_ms": 1, "expires_ms": 5, "revoked_ms": 7}],
        "attempt": 3,
        "subscribers": [
            {"subscriber": "s", "start_seq": 1, "last_seq": 9, "handled_seq": 4, "skipped": [[3, 3], [5, 6]]}
        ],
    }
    record = {"schema_version": 1, "job_id": "j", "status": "pending", "created_at": "2026-06-19T09:32:00Z"}
    record |= {"updated_at": "2026-06-19T09:32:00Z", "prompt": "p", "agent": "a", "broker": None, "topic_prefix": "t"}
    record |= {"last_seq": 9, "auth_token": None, "jobdb_state": state}
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "j.json").write_text(json.dumps(record))
    with Registry.open(postgres_database.url) as registry:
        assert import_registry(registry, tmp_path / "jobs").counts[Outcome.IMPORTED] == 1
        assert import_registry(registry, tmp_path / "jobs").counts[Outcome.UNCHANGED] == 1
        export_registry(registry, tmp_path / "out")
        assert json.loads((tmp_path / "out" / ".mam" / "jobs" / "j.json").read_bytes()) == record
        state["subscribers"][0]["last_seq"] = 12  # type: ignore[index]
        state["keys"][0]["expires_ms"] = 3  # type: ignore[index]
        (tmp_path / "jobs" / "j.json").write_text(json.dumps(record))
        assert import_registry(registry, tmp_path / "jobs").counts[Outcome.UPDATED] == 1
        assert registry.engine.subscriptions(job_id="j", subscriber="s", limit=9)[0].last_seq == 12
