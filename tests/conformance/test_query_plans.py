"""Test that the hot statements use an index and never sort, however many jobs there are.

JOBDB_PLAN_JOBS sets the size of the registry that they are explained on; `make torture` runs them on a million jobs.
"""

import json
import os
import re

import apsw
import pytest

from jobdb import NewJob
from jobdb.engines.postgresql.dialect import DIALECT
from jobdb.engines.sql.statements import ACCEPT, SUBSCRIPTIONS, VERBS
from jobdb.engines.statements import POSITIONAL, StatementSet
from jobdb.mqtt.statements import SUBSCRIBER
from tests.support.databases import ENGINES

JOBS = int(os.environ.get("JOBDB_PLAN_JOBS", "20000"))

_FILL = """
INSERT INTO jobs (id, job_id, status, agent, agent_session, priority, topic_prefix, timeout_sec, idle_timeout_sec,
                  has_broker, kid, last_seq, terminal_seq, attempt, lease_until_ms, created_ms, updated_ms, started_ms,
                  finished_ms, idempotency_key, not_before_ms, delay_ms)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs})
SELECT i, 'job' || i, CASE WHEN i % 10 < 6 THEN 'completed' WHEN i % 10 < 9 THEN 'pending' ELSE 'running' END,
       'agent' || (i % 7), CASE WHEN i % 3 = 0 THEN 'session' || (i % 50) END, i % 5, 'jobdb/jobs/' || i, 3600, 120,
       i % 2, 1, 3, CASE WHEN i % 10 < 6 THEN 3 END, 1, CASE WHEN i % 10 = 9 THEN 1000 + i END, i, i, i,
       CASE WHEN i % 10 < 6 THEN i END, CASE WHEN i % 4 = 0 THEN 'key' || i END,
       CASE WHEN i % 40 = 8 THEN 1000 + i END, CASE WHEN i % 40 = 8 THEN 1000 END
FROM n;
INSERT INTO specs (job, prompt) SELECT id, 'prompt' FROM jobs;
INSERT INTO attempts (job, attempt, worker, worker_id, host, started_ms)
SELECT id, 1, 'w', 'worker' || (id % 11), 'h', 1 FROM jobs WHERE status <> 'pending';
INSERT INTO workers (worker_id, name, host, machine, boot_id, pid_namespace, pid, pid_started, slots, lease_ms,
                     started_ms, heartbeat_ms)
SELECT 'worker' || id, 'w', 'h', 'm', 'b', 'n', id, id, 8, 60000, id, id FROM jobs WHERE id <= 11;
INSERT INTO tokens (job, kid, sealed, created_ms) SELECT id, 1, {digest}, 1 FROM jobs;
INSERT INTO events (job, seq, event, attempt, recorded_ms, digest, payload)
WITH RECURSIVE s (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < 3)
SELECT id, seq, 'progress', 1, id, {digest}, '{{}}' FROM jobs, s;
INSERT INTO outbox (event, job) SELECT id, job FROM events WHERE id % 50 = 0;
INSERT INTO subscriptions (job, subscriber, start_seq, last_seq, handled_seq, created_ms)
SELECT id, 'watcher' || (id % 3), 0, 3, 3, 1 FROM jobs;
INSERT INTO gaps (subscription, first_seq, last_seq) SELECT id, 2, 2 FROM subscriptions WHERE id % 10 = 0;
INSERT INTO refusals (job, subscriber, verdict, seq, recorded_ms, digest, reason, payload)
SELECT id, 's', 'replayed', 1, 1, {digest}, '', '' FROM jobs WHERE id % 100 = 0;
INSERT INTO questions (job, key, attempt, text, seq, asked_ms, answer, answered_by, answered_ms)
WITH RECURSIVE s (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM s WHERE number < 3)
SELECT id, 'k' || number, 1, '?', 3, id, CASE WHEN id % 100 <> 79 THEN 'allow' END,
       CASE WHEN id % 100 <> 79 THEN 'ann' END, CASE WHEN id % 100 <> 79 THEN id END
FROM jobs, s WHERE id % 5 = 4
"""

_TAKE = {"worker": "w", "lease_until": 5, "now": 4}
_CLAIM = {**_TAKE, "count": 8}
_SUBSCRIBER = {"subscriber": "watcher1", "job_id": "job77"}
HOT = {
    "claim_next": _CLAIM,
    "claim_next_by_agent": {**_CLAIM, "agent": "agent3"},
    "claim_next_by_session": {**_CLAIM, "agent_session": "session3", "agent": None},
    "claim_job": {**_TAKE, "job_id": "job77"},
    "claim_blockers": {"now": 4},
    "next_ready": {},
    "get_jobs_by_number": {"jobs": "[77, 79, 80]"},
    "ready_due_jobs": {"now": 1500, "limit": 100},
    "ready_void_delays": {"now": 4, "limit": 100},
    "expired_lease_of": {"job_id": "job77", "now": 4},
    "renew_lease": {"job": 20_000, "lease_until": 5, "now": 4},
    "give_back": {"job": 79, "now": 4, "strike": 1, "not_before": 9, "detail": None},
    "job_states": {"job_ids": '["job77", "job79", "job80"]'},
    "heartbeat": {"worker_id": "worker3", "now": 4},
    "jobs_of_worker": {"worker_id": "worker3", "renewed_before": 1500},
    "running_attempts": {},
    "insert_attempt": {"job": 77, "attempt": 2, "worker": "w", "worker_id": "w", "host": "h", "log": None, "now": 4},
    "worker_host": {"worker_id": "worker3"},
    "list_attempts": {"job": 77},
    "get_job": {"job_id": "job77"},
    "get_job_by_number": {"job": 77},
    "job_state": {"job_id": "job77"},
    "job_by_idempotency_key": {"idempotency_key": "key400"},
    "list_jobs": {"below": 5000, "agent_session": None, "limit": 100},
    "list_jobs_by_status": {"below": 5000, "status": "pending", "agent_session": None, "limit": 100},
    "list_jobs_by_agent": {"below": 5000, "status": "pending", "agent": "agent3", "agent_session": None, "limit": 100},
    "publish_state": {"job_id": "job77"},
    "publish_states": {"job_ids": '["job77", "job79", "job80"]'},
    "advance_job_if_unchanged": {
        "job": 77,
        "job_id": "job77",
        "last_seq": 3,
        "attempt": 1,
        "has_broker": 1,
        "kid": 1,
        "sealed": b"",
        "fenced": 1,
        "seq": 4,
        "event": "progress",
        "now": 5,
        "detail": None,
    },
    "list_events": {"job_id": "job77", "after": 0, "limit": 100},
    "outbox_page": {"after": 100, "limit": 100},
    "outbox_page_of_job": {"job_id": "job77", "after": 0, "limit": 100},
    "accept_state": {**_SUBSCRIBER, "kid": 1, "seq": 2},
    "sender_credentials": {"job_id": "job77", "kid": 1},
    "stored_event": {"job": 77, "seq": 2},
    "subscription_state": _SUBSCRIBER,
    "gap_containing_seq": {"subscription": 10, "seq": 2},
    "follow_events": {"job_id": "job77", "subscription": 77, "after": 0, "limit": 100},
    "follow_seqs": {"job_id": "job77", "subscription": 77, "after": 0, "limit": 100},
    "mark_handled": {**_SUBSCRIBER, "seq": 3, "after": 2},
    "feed_page": {"after": 1000, "stable_event_id": 2**62, "limit": 1000},
    "expired_leases": {"now": 1500, "limit": 100},
    "void_leases": {"now": 1500, "limit": 100},
    "prune_candidates": {"before": 1000, "limit": 100},
    "list_refusals": {"below": 2**62, "job_id": None, "limit": 100},
    "token_by_kid": {"job_id": "job77", "kid": 0},
    "verdict_counts_of_job": {"job_id": "job77"},
    "question": {"job": 79, "key": "k2"},
    "open_questions": {"after": 10, "limit": 100},
    "open_questions_of_job": {"job": 79, "after": 10, "limit": 100},
    "unanswered_questions": {"job": 79, "limit": 10},
    "questions_of_job": {"job": 79, "after": 10, "limit": 100},
    "all_questions": {"after": 10, "limit": 100},
    "ask_again": {"question": 79, "attempt": 2, "seq": 4, "now": 5},
    "answer_question": {"question": 79, "answer": "deny", "message": "", "by": "bob", "now": 5},
    "acknowledge_answer": {"question": 79, "seq": 4},
    "silence": {"job_id": "job79"},
}

SORTED = {
    ("postgresql", name)
    for name in (
        *("outbox_page_of_job", "jobs_of_worker", "running_attempts"),
        *("open_questions_of_job", "unanswered_questions", "questions_of_job"),
    )
}
SORTED |= {(engine, "get_jobs_by_number") for engine in ENGINES}
"""Where the rows that an index finds are sorted: the claimed jobs of a batch, and on PostgreSQL the running jobs or the
few rows that the statistics promise."""


def statements(engine):
    sets: tuple[StatementSet, ...] = VERBS if engine != "postgresql" else (*VERBS, DIALECT)
    return {name: statement.text for found in sets for name, statement in found.load().items()}


def whole_table(plan, engine):
    """Return the steps of a plan that read a whole table or sort."""
    if engine == "postgresql":
        # Reading a table of a few rows completely is fine.
        return [
            line for line in plan.splitlines() if re.search(r"Seq Scan on (?!verdict_counts|workers)|\bSort\b", line)
        ]
    # The partial index of ready jobs is read from its beginning, which is the next job to claim. A JSON array that the
    # caller gives is no table.
    return [
        line
        for line in plan.splitlines()
        if re.match(r"SCAN (?!jobs USING (?:COVERING )?INDEX jobs_ready|json_each|CONSTANT ROW)|USE TEMP B-TREE", line)
    ]


def test_the_hot_statements_use_an_index_without_a_sort(database):
    digest = "decode(repeat('00', 32), 'hex')" if database.name == "postgresql" else "zeroblob(32)"
    database.sql(_FILL.format(jobs=JOBS, digest=digest))
    if database.name == "postgresql":
        database.sql("ANALYZE")  # otherwise the plans depend on whether the server's own ANALYZE has run
    known = statements(database.name)
    bad = {}
    for name, parameters in HOT.items():
        plan = database.plan(known[name], parameters)
        found = whole_table(plan, database.name)
        if (database.name, name) in SORTED:
            found = [line for line in found if re.match(r".*Seq Scan|SCAN", line)]
        if found:
            bad[name] = (found, plan)
    if bad:
        pytest.fail("\n\n".join(f"{name}: {found}\n{plan}" for name, (found, plan) in bad.items()))


def test_other_values_do_not_prepare_a_statement_again(make_database):
    with make_database("sqlite-wal").open() as registry:
        registry.register_many([NewJob(agent="a", prompt="", job_id=f"job{number}") for number in range(100)])
        connection = registry.engine.store._writer
        prepared = []
        connection.authorizer = lambda *asked: prepared.append(asked) or apsw.SQLITE_OK
        again = {}
        connection.execute("BEGIN IMMEDIATE")
        for name, values in HOT.items():
            for repeat in (1, 2, 3):
                prepared.clear()
                connection.execute(statements("sqlite-wal")[name], _other_values(values, repeat)).fetchall()
                if repeat > 1 and prepared:
                    again[name] = len(prepared)
        connection.execute("ROLLBACK")
        connection.authorizer = None
    assert again == {}


def _other_values(parameters, number):
    return {name: _other_value(value, number) for name, value in parameters.items()}


def _other_value(value, number):
    if isinstance(value, int):
        return value + number
    if isinstance(value, str) and value.startswith("["):
        return json.dumps([*json.loads(value), str(number)])
    return value and f"{value}{number}"


def test_a_claim_reads_no_more_of_a_large_registry_than_of_a_small_one(make_database):
    """Jobs that are running, delayed or ended cost a claim nothing, whatever it asks for."""
    steps = {}
    for jobs in (200, JOBS):
        database = make_database("sqlite-wal")
        database.sql(_FILL.format(jobs=jobs, digest="zeroblob(32)"))
        with database.open(clock=lambda: 1000) as registry:
            looks = []
            registry.claim(worker="w")  # prepares the statements
            registry.engine.store._writer.set_progress_handler(lambda looks=looks: bool(looks.append(1)), 1)
            for wanted in ({}, {"agent": "agent3"}, {"agent_session": "session3"}, {"agent": "nobody"}):
                registry.claim(worker="w", **wanted)
                steps.setdefault(str(wanted), []).append(len(looks))
                looks.clear()
    assert {wanted: few for wanted, (few, many) in steps.items() if many > few * 2} == {}


_GAPS = """
DELETE FROM gaps;
DELETE FROM subscriptions WHERE id = 77;
UPDATE subscriptions SET id = 77, subscriber = 'watcher2', last_seq = {most}, handled_seq = {most} - 20 WHERE job = 77;
INSERT INTO events (job, seq, event, attempt, recorded_ms, digest, payload)
WITH RECURSIVE s (seq) AS (SELECT 4 UNION ALL SELECT seq + 1 FROM s WHERE seq < {most})
SELECT 77, seq, 'progress', 1, 1, zeroblob(32), '{{}}' FROM s WHERE seq % 2 = 0;
INSERT INTO gaps (subscription, first_seq, last_seq) SELECT 77, seq - 1, seq - 1 FROM events WHERE job = 77 AND seq > 3
"""


@pytest.mark.parametrize(
    "name", ["gap_containing_seq", "follow_events", "follow_seqs", "mark_handled", "accepted_unhandled"]
)
def test_a_publisher_that_skips_every_other_seq_slows_no_lookup(make_database, name):
    """Each event used to scan all skipped ranges before it."""
    database = make_database("sqlite-wal")
    most = 4000
    values = {
        "job_id": "job77", "subscription": 77, "subscriber": "watcher2", "after": most - 20, "seq": most, "limit": 10,
    }  # fmt: skip
    with database.open() as registry:
        connection = registry.engine.store._writer
        for statement in (_FILL.format(jobs=100, digest="zeroblob(32)") + ";" + _GAPS.format(most=most)).split(";"):
            connection.execute(statement)
        known = {**SUBSCRIBER.load(), **ACCEPT.load(), **SUBSCRIPTIONS.load()}
        sql, bind = POSITIONAL[known[name]]
        looks = []
        connection.set_progress_handler(lambda: bool(looks.append(1)), 10)
        rows = connection.execute(sql, bind(values)).fetchall()
        connection.set_progress_handler(None, 0)
    assert len(rows) == {"follow_events": 10, "follow_seqs": 10, "accepted_unhandled": 10}.get(name, 0)
    assert len(looks) < 200  # some dozens of instructions per row, and none per range


def test_a_scan_or_a_sort_is_detected(database):
    for query in ("SELECT * FROM jobs WHERE detail = 'x'", "SELECT job_id FROM jobs ORDER BY updated_ms LIMIT 1"):
        assert whole_table(database.plan(query, {}), database.name)
