"""Test register, get, list, count, cancel and prune, on every engine."""

import pytest

from jobdb import (
    AlreadyExists,
    Broker,
    IllegalTransition,
    InvalidInput,
    JobStatus,
    NewEvent,
    NewJob,
    Registry,
    UnknownJob,
)
from jobdb.model import EventKind


def register(registry: Registry, count: int, **fields: object) -> list[str]:
    new = [NewJob(agent="codex", prompt=f"job {n}", **fields) for n in range(count)]  # type: ignore[arg-type]
    return [job.job_id for job in registry.register_many(new)]


def test_a_registered_job_is_read_back_field_by_field(registry, clock):
    broker = Broker("mqtt.example", 8883, tls=True, username="agent")
    job = registry.register(
        agent="claude-code",
        prompt="Zeilen\nund 🎉 \x01 'quotes' \\ % :name %(x)s",
        job_id="job-1",
        agent_session="tmux:work",
        priority=-3,
        topic_prefix="mam/jobs/1",
        broker=broker,
        broker_password="hunter2-hunter2",
        timeout_sec=10**8,
        idle_timeout_sec=0,
        expected_artifacts=["out/ä.txt", "b"],
        extra={"x": [1, 2.5, None, {"ü": "\u0000"}]},
    )
    assert job == registry.get("job-1")
    shown = job.as_dict()
    assert shown["prompt"] == "Zeilen\nund 🎉 \x01 'quotes' \\ % :name %(x)s"
    assert shown["broker"] == {
        "host": "mqtt.example",
        "port": 8883,
        "tls": True,
        "username": "agent",
        "has_password": True,
    }
    assert shown["expected_artifacts"] == ["out/ä.txt", "b"]
    assert shown["extra"] == {"x": [1, 2.5, None, {"ü": "\u0000"}]}
    assert (job.status, job.last_seq, job.attempt, job.strikes) == (JobStatus.PENDING, 0, 0, 0)
    assert (job.timeout_sec, job.idle_timeout_sec, job.priority) == (10**8, 0, -3)
    assert job.topic == "mam/jobs/1/events"
    assert job.created_at.timestamp() * 1000 == clock.now_ms
    assert job.worker is job.lease_expires_at is job.started_at is job.finished_at is job.detail is None
    assert registry.engine.broker("job-1") == (Broker("mqtt.example", 8883, True, "agent", True), "hunter2-hunter2")


def test_ids_are_generated_and_taken_ids_are_refused(registry):
    made = registry.register(agent="codex", prompt="")
    assert made.job_id and made.topic_prefix == f"jobdb/jobs/{made.job_id}"
    registry.register(agent="codex", prompt="", job_id="x")
    with pytest.raises(AlreadyExists, match="'x'"):
        registry.register(agent="codex", prompt="", job_id="x")
    assert len(registry.jobs()) == 2


def test_a_batch_is_registered_whole_or_not_at_all(registry):
    registry.register(agent="codex", prompt="", job_id="taken")
    with pytest.raises(AlreadyExists):
        registry.register_many([NewJob(agent="a", prompt="", job_id=name) for name in ("one", "two", "taken")])
    assert [job.job_id for job in registry.jobs()] == ["taken"]
    assert len(register(registry, 50)) == 50
    assert len(registry.jobs(limit=100)) == 51
    assert registry.register_many([]) == []


def test_an_idempotency_key_yields_the_same_job(registry):
    first = registry.register(agent="codex", prompt="p", idempotency_key="k1")
    assert registry.register(agent="codex", prompt="p", idempotency_key="k1") == first
    registry.claim(worker="w")
    assert registry.register(agent="codex", prompt="p", idempotency_key="k1").status is JobStatus.RUNNING
    with pytest.raises(AlreadyExists, match="k1"):
        registry.register(agent="codex", prompt="another", idempotency_key="k1")
    twice = [NewJob(agent="a", prompt="b", idempotency_key="k2")] * 2
    one, two = registry.register_many(twice)
    assert one == two
    assert len(registry.jobs()) == 2


def test_every_verb_reports_an_unknown_job(registry):
    calls = [
        lambda: registry.get("nobody"),
        lambda: registry.events("nobody"),
        lambda: registry.cancel("nobody"),
        lambda: registry.claim(worker="w", job_id="nobody"),
        lambda: registry.renew("nobody", attempt=1),
        lambda: registry.release("nobody", attempt=1),
        lambda: registry.publish("nobody", "progress"),
        lambda: registry.wait("nobody", timeout_sec=1),
        lambda: registry.subscribe("nobody", subscriber="s"),
        lambda: registry.engine.follow("nobody", subscriber="s", start="beginning", limit=1),
        lambda: registry.jobs(after="nobody"),
        lambda: registry.tokens.show("nobody"),
        lambda: registry.tokens.list("nobody"),
        lambda: registry.tokens.rotate("nobody"),
        lambda: registry.tokens.revoke("nobody", 1),
        lambda: registry.engine.broker("nobody"),
    ]
    for call in calls:
        with pytest.raises(UnknownJob, match="nobody"):
            call()
    assert registry.subscriptions() == []


def test_lists_are_filtered_and_newest_first(registry):
    a = register(registry, 3)
    b = [registry.register(agent="hermes", prompt="", agent_session="s1").job_id for _ in range(2)]
    registry.cancel(a[0])
    registry.claim(worker="w", job_id=b[0])
    names = lambda **wanted: [job.job_id for job in registry.jobs(**wanted)]  # noqa: E731
    assert names() == [b[1], b[0], a[2], a[1], a[0]]
    assert names(status="pending") == [b[1], a[2], a[1]]
    assert names(status=["cancelled", JobStatus.RUNNING]) == [b[0], a[0]]
    assert names(agent="hermes") == [b[1], b[0]]
    assert names(agent="codex", status="pending") == [a[2], a[1]]
    assert names(agent="codex", status=("pending", "cancelled")) == [a[2], a[1], a[0]]
    assert names(agent_session="s1") == [b[1], b[0]]
    assert names(agent_session="s1", status="running") == [b[0]]
    assert names(agent="hermes", agent_session="s1", status="pending") == [b[1]]
    assert names(agent="nobody") == names(agent_session="s2") == names(status="completed") == []
    with pytest.raises(InvalidInput):
        registry.jobs(status="asleep")


@pytest.mark.parametrize(
    "wanted", [{}, {"status": "pending"}, {"agent": "codex"}, {"status": ["pending", "cancelled"], "agent": "codex"}]
)
def test_keyset_pages_show_every_job_once(registry, wanted):
    ids = register(registry, 23)
    for job_id in ids[::5]:
        registry.cancel(job_id)
    expected = [job.job_id for job in registry.jobs(limit=100, **wanted)]
    assert [job.job_id for job in registry.all_jobs(page_size=4, **wanted)] == expected
    page = registry.jobs(limit=4, **wanted)
    register(registry, 3)
    following = registry.jobs(after=page[-1].job_id, limit=4, **wanted)
    assert [job.job_id for job in following] == expected[4:8]


def test_limits_are_checked(registry):
    for limit in (0, -1, 10_001, True, 1.5):
        with pytest.raises(InvalidInput):
            registry.jobs(limit=limit)
    with pytest.raises(InvalidInput):
        registry.register(agent="", prompt="")
    with pytest.raises(InvalidInput):
        registry.register(agent="a" * 129, prompt="")
    with pytest.raises(InvalidInput):
        registry.register(agent="a", prompt="x" * 4_194_305)
    assert registry.jobs() == []


def test_the_longest_fields_fit(registry):
    job = registry.register(
        agent="ä" * 128,
        prompt="ü" * 4_194_304,
        job_id="j" * 128,
        agent_session="s" * 256,
        topic_prefix="t" * 1024,
        idempotency_key="k" * 256,
        priority=1_000_000,
    )
    assert registry.get("j" * 128) == job
    claim = registry.claim(worker="w" * 256)
    assert claim is not None and claim.worker == "w" * 256
    event = registry.publish(job.job_id, "progress", detail="d" * 4096, attempt=1)
    assert registry.events(job.job_id)[0].detail == event.detail == "d" * 4096


def test_counts_include_every_status(registry):
    ids = register(registry, 4)
    registry.cancel(ids[0])
    registry.publish(ids[1], "completed")
    registry.publish(ids[2], "started")
    assert registry.count_by_status() == {
        JobStatus.PENDING: 1,
        JobStatus.RUNNING: 1,
        JobStatus.COMPLETED: 1,
        JobStatus.ERROR: 0,
        JobStatus.CANCELLED: 1,
    }


def test_cancel_ends_a_job_once(registry, clock):
    pending, running, done = register(registry, 3)
    registry.claim(worker="w", job_id=running)
    registry.publish(done, "completed")
    clock.advance(5)
    for job_id in (pending, running):
        job = registry.cancel(job_id, reason="not needed " + "x" * 900)
        assert job.status is JobStatus.CANCELLED and job.detail.startswith("not needed")
        assert job.finished_at.timestamp() * 1000 == clock.now_ms and job.lease_expires_at is None
        assert registry.cancel(job_id, reason="again") == job
        assert registry.events(job_id) == []
    with pytest.raises(IllegalTransition, match="completed"):
        registry.cancel(done)


def test_prune_deletes_old_ended_jobs_with_all_their_rows(registry, database, clock):
    old, young, living, waiting = register(registry, 4)
    registry.publish_many([NewEvent(job_id=old, event=EventKind.PROGRESS)] * 3)
    registry.accept(registry.events(old)[0].payload, subscriber="s")
    registry.accept(registry.events(old)[2].payload, subscriber="s")
    registry.accept("x", subscriber="s")
    registry.complete(old)
    registry.publish(living, "progress")
    delivered = registry.register(agent="a", prompt="", broker=Broker("localhost")).job_id
    registry.publish(delivered, "completed")
    clock.advance(100)
    registry.cancel(young)
    assert registry.prune(older_than_sec=60) == [old]
    assert registry.prune(older_than_sec=60) == []
    assert registry.engine.outbox_size()[0] == 1
    registry.engine.mark_delivered([delivery.number for delivery in registry.engine.outbox(after=0, limit=9)])
    assert registry.prune(older_than_sec=60) == [delivered]
    assert registry.prune(older_than_sec=0) == []
    clock.advance(0.001)
    assert registry.prune(older_than_sec=0) == [young]
    assert {job.job_id for job in registry.jobs()} == {living, waiting}
    with pytest.raises(UnknownJob):
        registry.get(old)
    registry.close()
    for table, column in (("specs", "job"), ("tokens", "job"), ("jobs", "id")):
        assert database.scalar(f"SELECT count({column}) FROM {table}") == 2, table
    for table in ("subscriptions", "gaps", "outbox", "refusals"):
        assert database.scalar(f"SELECT count(*) FROM {table}") == 0, table
    assert database.scalar("SELECT count(*) FROM verdict_counts WHERE job <> 0") == 0
    assert database.scalar("SELECT count(*) FROM events") == 1


def test_prune_deletes_in_batches_oldest_first(registry, clock):
    ids = register(registry, 7)
    for job_id in ids:
        clock.advance(1)
        registry.cancel(job_id)
    clock.advance(10)
    assert registry.prune(older_than_sec=1, limit=3) == ids[:3]
    assert registry.prune(older_than_sec=1, limit=3) == ids[3:6]
    assert registry.prune(older_than_sec=1, limit=3) == ids[6:]


def test_settings_are_stored(registry):
    assert registry.engine.setting("colour") is None
    registry.engine.put_setting("colour", "green")
    registry.engine.put_setting("colour", "blue")
    assert registry.engine.setting("colour") == "blue"


def test_a_closed_registry_raises(database):
    registry = database.open()
    registry.close()
    registry.close()
    with pytest.raises(InvalidInput, match="closed"):
        registry.jobs()
    with pytest.raises(InvalidInput, match="closed"):
        registry.register(agent="a", prompt="")


def test_two_registries_of_one_process_see_each_other(database):
    with database.open() as one, database.open() as two:
        job = one.register(agent="a", prompt="b")
        assert two.get(job.job_id) == job
        two.publish(job.job_id, "completed")
        assert one.get(job.job_id).status is JobStatus.COMPLETED


def test_all_jobs_continues_if_the_last_job_of_a_page_is_pruned(registry, clock):
    ids = [registry.register(agent="a", prompt="").job_id for _ in range(7)]
    every = registry.all_jobs(page_size=3)
    shown = [next(every).job_id for _ in range(3)]
    registry.cancel(ids[4])
    clock.advance(60)
    assert registry.prune(older_than_sec=30) == [ids[4]]
    assert shown + [job.job_id for job in every] == ids[::-1]
    assert [job.job_id for job in registry.all_jobs(page_size=3, after=ids[5])] == [ids[3], ids[2], ids[1], ids[0]]
