"""Test that stores behave as their traits declare, and that rows have the columns of their named tuples."""

import math

import pytest

from jobdb import InvalidInput
from jobdb.engines.sql.job_rows import JobRecord
from jobdb.engines.sql.statements import JOBS
from jobdb.model import EventKind


def test_text_with_a_nul_is_stored_or_refused(registry):
    def put():
        with registry.store.write() as tx:
            tx.run(JOBS.put_setting, name="nul", value="a\0b")

    if registry.store.traits.stores_nul:
        put()
        assert registry.engine.setting("nul") == "a\0b"
    else:
        with pytest.raises(InvalidInput, match="cannot hold a value"):
            put()
        assert registry.engine.setting("nul") is None


def test_an_event_is_presigned_only_by_the_clock_of_its_transaction(registry, job, clock, monkeypatch):
    registry.publish(job.job_id, "started")
    signed = []
    presign = registry.engine.presign_cache.presign
    monkeypatch.setattr(
        registry.engine.presign_cache, "presign", lambda *given: signed.append(presign(*given)) or signed[-1]
    )
    clock.advance(5)
    event = registry.publish(job.job_id, EventKind.PROGRESS)
    assert [each is not None for each in signed] == ([True] if registry.store.traits.presigns else [])
    assert event.recorded_at == event.timestamp or event.recorded_at.isoformat().startswith(str(event.timestamp)[:19])


def test_a_file_reports_its_path_journal_and_identity(registry, database):
    file = registry.store.file
    assert (file is None) == (database.name == "postgresql")
    if file is not None:
        assert str(file.path) in database.url and file.journal == database.name.partition("-")[2]
        assert file.integrity(full=True) == [] and file.settings()["journal_mode"] == file.journal
        assert file.identity == (file.path.stat().st_dev, file.path.stat().st_ino)


def test_the_order_of_all_events_is_final_while_there_are_no_writers(registry, job):
    event = registry.publish(job.job_id, "progress")
    stable = registry.store.stable_events()
    assert stable.recheck_sec == math.inf
    registry.engine.open_feed("all", start="beginning")
    page = registry.engine.poll_feed("all", after=None, limit=10)
    assert page.job_ids == [event.job_id] and page.last_event <= stable.event_id and page.recheck_sec == math.inf


def test_a_job_record_has_the_columns_of_its_view(database):
    columns = {
        "postgresql": "SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM information_schema.columns "
        "WHERE table_name = 'job_records' AND table_schema = current_schema()"
    }.get(database.name, "SELECT group_concat(name) FROM pragma_table_info('job_records')")
    assert tuple(database.scalar(columns).split(",")) == JobRecord._fields
