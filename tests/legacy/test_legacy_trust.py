"""Test that export and import keep the trust state: signatures, revocations, attempts, positions of subscribers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobdb import InvalidInput, Registry
from jobdb.core.protocol import build
from jobdb.legacy import Outcome, export_registry, import_registry
from jobdb.legacy.format.damage import DamageKind, TrustWarning
from jobdb.legacy.format.record import LegacyRecord
from jobdb.legacy.format.record_parser import parse_record
from jobdb.model import EventKind, Verdict
from tests.support.legacy_registry import read_records

Open = Callable[..., Registry]
WHEN = "2026-06-19T09:32:00Z"


def unsigned(job_id: str, seq: int, event: str = "completed", **data: Any) -> str:
    payload = {"schema_version": 1, "seq": seq, "job_id": job_id, "event": event, "timestamp": WHEN, "detail": "forged"}
    return json.dumps(payload | {"data": data})


def signed(job_id: str, seq: int, token: str, *, kid: int = 1, attempt: int | None = None) -> str:
    kind = EventKind.COMPLETED
    made = build(
        job_id=job_id, seq=seq, event=kind, timestamp=WHEN, detail="", data={}, attempt=attempt, kid=kid, token=token
    )
    return made.text


def transfer(source: Registry, target: Registry, folder: Path, *, with_secrets: bool) -> None:
    """Export from one database and import into another."""
    assert export_registry(source, folder, with_secrets=with_secrets).ok
    assert import_registry(target, folder).ok


def record_in(folder: Path, job_id: str) -> Path:
    return folder / ".mam" / "jobs" / f"{job_id}.json"


def exported(registry: Registry, folder: Path, **options: Any) -> dict[str, Any]:
    export_registry(registry, folder, **options)
    return {path.name: json.loads(path.read_bytes()) for path in folder.rglob("jobs/*.json")}


def test_a_job_without_its_exported_token_accepts_nothing_until_it_has_a_new_one(
    tmp_path: Path, open_database: Open
) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    first.publish("j", "progress")
    old_token = first.tokens.show("j")
    export_registry(first, tmp_path / "out")
    report = import_registry(second, tmp_path / "out")
    (row,) = report.rows()
    assert row.outcome is Outcome.IMPORTED
    assert row.warning is TrustWarning.NO_USABLE_TOKEN
    assert "left out of the export" in row.reason and "token rotate" in row.reason
    assert report.trust()["no_usable_token"] == 1
    assert second.get("j").auth == "required"
    assert second.accept(unsigned("j", 2), subscriber="s").verdict is Verdict.UNSIGNED
    assert second.accept(signed("j", 2, old_token), subscriber="s").verdict is Verdict.REVOKED_KEY
    # Nothing has changed since: the round trip is equal, with and without secrets, and importing again does nothing.
    before = read_records(tmp_path / "out")
    assert exported(second, tmp_path / "again") == exported(second, tmp_path / "clear", with_secrets=True) == before
    assert import_registry(second, tmp_path / "out").counts[Outcome.UNCHANGED] == 1
    # The real token opens the job if it is imported later; otherwise a new one does.
    with_token = open_database("third.db")
    import_registry(with_token, tmp_path / "out")
    export_registry(first, tmp_path / "true", with_secrets=True)
    assert import_registry(with_token, tmp_path / "true").counts[Outcome.UPDATED] == 1
    assert with_token.tokens.show("j") == old_token
    assert with_token.accept(signed("j", 2, old_token), subscriber="s").verdict is Verdict.ACCEPTED
    kid = second.tokens.rotate("j", overlap_sec=0)
    new = signed("j", 2, second.tokens.show("j"), kid=kid)
    assert second.accept(signed("j", 2, old_token), subscriber="s").verdict is Verdict.REVOKED_KEY
    assert second.accept(new, subscriber="s").verdict is Verdict.ACCEPTED


def test_a_stale_attempt_stays_stale(tmp_path: Path, open_database: Open) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    assert first.claim(worker="w1", job_id="j") is not None
    first.publish("j", "started", attempt=1)
    stale = signed("j", 2, first.tokens.show("j"), attempt=1)
    first.release("j", attempt=1)
    assert first.claim(worker="w2", job_id="j") is not None
    assert first.accept(stale, subscriber="s").verdict is Verdict.STALE_ATTEMPT
    transfer(first, second, tmp_path / "out", with_secrets=True)
    assert second.get("j").attempt == 2
    assert second.accept(stale, subscriber="other").verdict is Verdict.STALE_ATTEMPT
    # A job that was claimed without an event counts too, even if an old script has written its record since.
    first.register(agent="a", prompt="p", job_id="quiet")
    assert first.claim(worker="w1", job_id="quiet") is not None
    first.release("quiet", attempt=1)
    export_registry(first, tmp_path / "out", with_secrets=True)
    path = record_in(tmp_path / "out", "quiet")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"last_seq": 5, "updated_at": "2099-01-01T00:00:00Z"}))
    import_registry(second, tmp_path / "out")
    assert (second.get("quiet").attempt, second.get("quiet").last_seq) == (1, 5)


def test_events_that_a_subscriber_accepted_are_not_accepted_again(tmp_path: Path, open_database: Open) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    for _ in range(4):
        first.publish("j", "progress")
    wires = [event.payload for event in first.events("j")]
    assert first.accept(wires[0], subscriber="orch").verdict is Verdict.ACCEPTED
    assert first.accept(wires[3], subscriber="orch").missing == range(2, 4)
    assert first.accept(wires[2], subscriber="orch", window=5).verdict is Verdict.ACCEPTED
    transfer(first, second, tmp_path / "out", with_secrets=True)
    verdicts = [second.accept(wire, subscriber="orch", window=5).verdict for wire in wires]
    assert verdicts == [Verdict.DUPLICATE, Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.DUPLICATE]
    mine = [
        (each.start_seq, each.last_seq, each.handled_seq)
        for each in first.engine.subscriptions(job_id="j", subscriber="orch", limit=9)
    ]
    third = open_database("third.db")
    import_registry(third, tmp_path / "out")
    assert mine == [
        (each.start_seq, each.last_seq, each.handled_seq)
        for each in third.engine.subscriptions(job_id="j", subscriber="orch", limit=9)
    ]
    # The next import adds what it accepted later, and never the reverse.
    first.publish("j", "progress")
    late = first.events("j")[-1].payload
    first.accept(late, subscriber="orch")
    transfer(first, third, tmp_path / "later", with_secrets=True)
    assert third.accept(late, subscriber="orch").verdict is Verdict.DUPLICATE
    import_registry(third, tmp_path / "out")
    assert third.accept(late, subscriber="orch").verdict is Verdict.DUPLICATE


def test_an_export_without_subscribers_records_that(tmp_path: Path, registry: Registry, open_database: Open) -> None:
    first = open_database("first.db")
    first.register(agent="a", prompt="p", job_id="j")
    first.publish("j", "progress")
    export_registry(first, tmp_path / "out", with_secrets=True)
    assert "jobdb_state" not in record_in(tmp_path / "out", "j").read_text()  # the old form contains everything
    assert import_registry(registry, tmp_path / "out").trust()["without_subscribers"] == 1


def test_token_versions_and_their_expiries_are_kept(tmp_path: Path, open_database: Open) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    first.publish("j", "started")
    first.tokens.rotate("j", overlap_sec=3600)
    first.tokens.revoke("j", 1)
    first.publish("j", "progress")
    one, two = (event.payload for event in first.events("j"))
    transfer(first, second, tmp_path / "out", with_secrets=True)
    assert [(info.kid, info.state) for info in second.tokens.list("j")] == [(1, "revoked"), (2, "current")]
    assert second.accept(one, subscriber="s").verdict is Verdict.REVOKED_KEY
    assert second.accept(two, subscriber="s").verdict is Verdict.ACCEPTED
    assert exported(second, tmp_path / "again", with_secrets=True)["j.json"]["jobdb_state"]["kid"] == 2
    # An old script that drops the member does not bring the revoked version back where it is known.
    path = record_in(tmp_path / "out", "j")
    record = json.loads(path.read_bytes())
    del record["jobdb_state"]
    path.write_text(json.dumps(record | {"status": "completed", "updated_at": "2099-01-01T00:00:00Z"}))
    third = open_database("third.db")
    export_registry(first, tmp_path / "fresh", with_secrets=True)
    import_registry(third, tmp_path / "fresh")
    assert import_registry(third, tmp_path / "out").counts[Outcome.UPDATED] == 1
    assert [(info.kid, info.state) for info in third.tokens.list("j")] == [(1, "revoked"), (2, "current")]
    # A revocation elsewhere is imported, and a key in its overlap is not.
    first.tokens.rotate("j", overlap_sec=3600)
    assert exported(first, tmp_path / "fresh", with_secrets=True)["j.json"]["jobdb_state"]["kid"] == 3


@pytest.mark.parametrize("with_secrets", [True, False])
def test_a_revoked_token_stays_revoked(tmp_path: Path, open_database: Open, with_secrets: bool) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    first.publish("j", "started")
    first.tokens.revoke("j", 1)
    (wire,) = (event.payload for event in first.events("j"))
    transfer(first, second, tmp_path / "out", with_secrets=with_secrets)
    assert second.get("j").auth == "required"
    assert [(info.kid, info.state) for info in second.tokens.list("j")] == [(1, "revoked")]
    assert second.accept(unsigned("j", 2), subscriber="s").verdict is Verdict.UNSIGNED
    assert second.accept(wire, subscriber="s").verdict is Verdict.REVOKED_KEY
    assert exported(second, tmp_path / "again", with_secrets=with_secrets) == read_records(tmp_path / "out")
    path = record_in(tmp_path / "out", "j")
    record = json.loads(path.read_bytes()) | {"auth_token": "A" * 43, "updated_at": "2099-01-01T00:00:00Z"}
    path.write_text(json.dumps(record))
    assert [row.damage for row in import_registry(second, tmp_path / "out").rows()] == [DamageKind.BAD_STATE]
    del record["jobdb_state"]
    path.write_text(json.dumps(record))
    (row,) = import_registry(second, tmp_path / "out").rows()
    assert (row.outcome, row.reason.split(";")[0]) == (Outcome.SKIPPED, "its token was revoked here")


def test_an_environment_that_requires_tokens_closes_jobs_without_one(
    tmp_path: Path, open_database: Open, make_legacy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0)
    without = {name[:-5] for name, record in read_records(tmp_path / "w").items() if not record.get("auth_token")}
    assert without
    known, new = open_database("known.db"), open_database("new.db")
    report = import_registry(known, jobs)
    assert report.trust()["unsigned"] == len(without)
    assert {row.job_id for row in report.rows() if "its events need no signature" in row.reason} == without
    for name, value in (("JOBDB_REQUIRE_AUTH", "1"), ("MQTT_TLS", "1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            database = new if name == "MQTT_TLS" else known
            report = import_registry(database, jobs)
            assert report.counts[Outcome.UPDATED if database is known else Outcome.IMPORTED] >= len(without)
            assert {row.job_id for row in report.rows() if row.warning is TrustWarning.NO_USABLE_TOKEN} == without
            assert all(name in row.reason for row in report.rows() if row.job_id in without)
            assert import_registry(database, jobs).counts[Outcome.UNCHANGED] == len(read_records(tmp_path / "w"))
    for database in (known, new):
        for job_id in without:
            assert database.get(job_id).auth == "required"
            assert database.accept(unsigned(job_id, 99), subscriber="s").verdict is Verdict.UNSIGNED
        # The files have not changed: the export equals the import.
        assert exported(database, tmp_path / f"{id(database)}", with_secrets=True) == read_records(tmp_path / "w")
        assert import_registry(database, jobs).counts[Outcome.UNCHANGED] == len(read_records(tmp_path / "w"))


def test_short_tokens_are_reported(tmp_path: Path, registry: Registry, make_legacy: Callable[..., Path]) -> None:
    jobs = make_legacy(tmp_path / "w", damaged=0)
    name, record = next(
        (name, record) for name, record in read_records(tmp_path / "w").items() if record.get("auth_token")
    )
    (jobs / name).write_text(json.dumps(record | {"auth_token": "secret12"}))
    report = import_registry(registry, jobs)
    (row,) = (row for row in report.rows() if row.warning is TrustWarning.WEAK_TOKEN)
    assert (row.file, row.outcome) == (name, Outcome.IMPORTED)
    assert "has 48 bits" in row.reason and "secret12" not in row.reason
    assert row.as_dict()["warning"] == "weak_token"


def test_an_export_over_a_folder_that_knows_more_is_refused(tmp_path: Path, open_database: Open) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    first.publish("j", "started")
    (wire,) = (event.payload for event in first.events("j"))
    transfer(first, second, tmp_path / "out", with_secrets=True)
    first.accept(wire, subscriber="orch")
    export_registry(first, tmp_path / "out", with_secrets=True)
    (row,) = export_registry(second, tmp_path / "out", with_secrets=True).rows()
    assert row.outcome is Outcome.SKIPPED and "orch" in row.reason
    assert exported(first, tmp_path / "out", with_secrets=True)["j.json"]["jobdb_state"]["subscribers"]


def test_no_secret_is_in_the_state(tmp_path: Path, registry: Registry) -> None:
    registry.register(agent="a", prompt="p", job_id="j")
    old = registry.tokens.show("j")
    registry.tokens.rotate("j")
    new = registry.tokens.show("j")
    export_registry(registry, tmp_path / "out")
    export_registry(registry, tmp_path / "clear", with_secrets=True)
    assert not any(secret in record_in(tmp_path / "out", "j").read_text() for secret in (old, new))
    assert old not in record_in(tmp_path / "clear", "j").read_text()


SEQS = st.integers(0, 9)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a state as an export may write it, and sometimes an invalid one."""
    kid = draw(st.sampled_from([1, 2, 3]))
    state: dict[str, Any] = {"version": 1}
    if draw(st.booleans()):
        state["auth_required"] = True
    if kid > 1:
        state["kid"] = kid
    times = st.fixed_dictionaries({"created_ms": SEQS}, optional={"expires_ms": SEQS, "revoked_ms": SEQS})
    chosen = draw(st.lists(st.integers(1, kid), unique=True, max_size=3))
    keys = [{"kid": each} | draw(times) for each in sorted(chosen)]
    if keys:
        state["keys"] = keys
    attempt = draw(st.integers(0, 3))
    if attempt:
        state["attempt"] = attempt
    subscribers = []
    for name in draw(st.lists(st.sampled_from(["a", "b", "ü c"]), unique=True)):
        start, length = draw(SEQS), draw(SEQS)
        numbers = {"subscriber": name, "start_seq": start, "last_seq": start + length}
        numbers["handled_seq"] = draw(st.integers(0, start + length))
        if length > 3:
            numbers["skipped"] = [[start + 1, start + 1], [start + 3, start + length - draw(st.integers(0, 1))]]
        subscribers.append(numbers)
    if subscribers:
        state["subscribers"] = sorted(subscribers, key=lambda each: str(each["subscriber"]))
    return state


RECORD = {
    "schema_version": 1,
    "job_id": "j",
    "status": "running",
    "created_at": WHEN,
    "updated_at": WHEN,
    "prompt": "p",
    "agent": "codex",
    "broker": None,
    "topic_prefix": "t/j",
    "last_seq": 0,
}


@given(states(), st.sampled_from([None, "", "A" * 43, "short"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_round_trips_or_is_reported(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any], token: str | None
) -> None:
    folder = tmp_path_factory.mktemp("state")
    (folder / "jobs").mkdir()
    record = RECORD | {"auth_token": token, "jobdb_state": state}
    (folder / "jobs" / "j.json").write_text(json.dumps(record))
    parsed = parse_record(json.dumps(record).encode(), "j.json")
    with Registry.open(folder / "jobs.db", create=True, durability="normal") as registry:
        report = import_registry(registry, folder / "jobs")
        if not isinstance(parsed, LegacyRecord):
            assert [row.damage for row in report.rows()] == [DamageKind.BAD_STATE]
            return
        assert report.counts[Outcome.IMPORTED] == 1
        assert import_registry(registry, folder / "jobs").counts[Outcome.UNCHANGED] == 1
        found = exported(registry, folder / "out", with_secrets=True)["j.json"]
        expected = RECORD | {"auth_token": token} | ({"jobdb_state": parsed.state} if parsed.state else {})
        assert found == expected
        if state.get("auth_required") or token:
            assert registry.accept(unsigned("j", 50), subscriber="new").verdict is Verdict.UNSIGNED


def test_placeholder_keys_are_sealed_like_any_other(tmp_path: Path, open_database: Open) -> None:
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    transfer(first, second, tmp_path / "out", with_secrets=False)
    second.close()
    with sqlite3.connect(tmp_path / "databases" / "second.db") as file:
        ((kid, revoked, length),) = file.execute("SELECT kid, revoked_ms IS NOT NULL, length(sealed) FROM tokens")
    assert (kid, revoked) == (1, 1) and length > 43


def test_the_name_of_the_state_field_is_reserved(registry: Registry) -> None:
    with pytest.raises(InvalidInput, match="jobdb_state"):
        registry.register(agent="a", prompt="p", extra={"jobdb_state": {}})


def test_a_closed_job_follows_its_file_and_stays_closed(tmp_path: Path, open_database: Open) -> None:
    """So too if the old script that wrote the file has dropped the state, or its token was never known here."""
    first, second = open_database("first.db"), open_database("second.db")
    first.register(agent="a", prompt="p", job_id="j")
    transfer(first, second, tmp_path / "out", with_secrets=False)
    path = record_in(tmp_path / "out", "j")
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps(record | {"status": "running", "updated_at": "2090-01-01T00:00:00Z"}))
    assert import_registry(second, tmp_path / "out").counts[Outcome.UPDATED] == 1
    del record["jobdb_state"]
    path.write_text(json.dumps(record | {"status": "completed", "updated_at": "2091-01-01T00:00:00Z"}))
    assert import_registry(second, tmp_path / "out").counts[Outcome.UPDATED] == 1
    assert (second.get("j").status, second.get("j").auth) == ("completed", "required")
    assert [info.state for info in second.tokens.list("j")] == ["revoked"]
    assert import_registry(second, tmp_path / "out").counts[Outcome.UNCHANGED] == 1
    # A job that had no token here, and was signed elsewhere since.
    third = open_database("third.db")
    import_registry(third, tmp_path / "out")
    assert third.get("j").auth == "never"
    state = {"jobdb_state": {"version": 1, "auth_required": True}}
    path.write_text(json.dumps(record | state | {"status": "completed", "updated_at": "2091-01-01T00:00:00Z"}))
    assert import_registry(third, tmp_path / "out").counts[Outcome.UPDATED] == 1
    assert third.get("j").auth == "required"
    assert third.accept(unsigned("j", 9), subscriber="s").verdict is Verdict.UNSIGNED
