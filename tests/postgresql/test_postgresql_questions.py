"""Ad-hoc questions on PostgreSQL: reading only, no sealed secret."""

import json

import pytest

from jobdb import InvalidInput, Registry, TimedOut


@pytest.fixture
def ask(url):
    with Registry.open(url, create=True) as registry:
        registry.register(agent="codex", prompt="100 % of it", job_id="j")
        yield lambda sql, **more: registry.engine.store.query(sql, **{"limit": 10, "timeout_sec": 20, **more})


def test_selects_on_the_views_are_answered(ask):
    assert ask("SELECT job_id, agent FROM v_jobs WHERE prompt LIKE '100 %'") == (["job_id", "agent"], [("j", "codex")])
    assert ask("WITH n AS (SELECT generate_series(1, 50) AS i) SELECT i FROM n", limit=3)[1] == [(1,), (2,), (3,)]
    assert ask("SELECT 1 AS one WHERE false;  ") == (["one"], [])
    assert ask("SELECT count(*), count(agent) FROM v_jobs -- both") == (["count", "count"], [(1, 1)])
    assert ask("SELECT count(*) AS n FROM jobs AS j JOIN events AS e ON e.job = j.id")[1] == [(0,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM jobs",
        "UPDATE jobs SET agent = 'x'",
        "INSERT INTO settings VALUES ('a', 'b')",
        "SELECT 1; SELECT 2",
        "SELECT 1; COMMIT; DELETE FROM jobs",
        "DROP TABLE jobs",
        "COPY jobs TO STDOUT",
        "WITH gone AS (DELETE FROM jobs RETURNING id) SELECT * FROM gone",
        "SELECT nextval('events_id_seq')",
        "SELECT nothing FROM v_jobs",
        "SELECT 1) AS a, (SELECT 2",
        "SELECT 1 /*",
        "",
        "ANALYZE SELECT 1",
        "SET search_path = public",
    ],
)
def test_anything_else_is_refused(ask, sql):
    before = ask("SELECT count(*) FROM v_jobs")
    with pytest.raises(InvalidInput):
        ask(sql)
    assert ask("SELECT count(*) FROM v_jobs") == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sealed FROM tokens",
        "SELECT t FROM tokens AS t",
        "SELECT row_to_json(t) FROM tokens AS t",
        "SELECT count(*) FROM tokens",
        "SELECT 1 FROM v_jobs WHERE EXISTS (SELECT 1 FROM tokens)",
        "SELECT x FROM (SELECT md5(broker_password) AS x FROM specs OFFSET 0) AS q",
        "SELECT broker_password FROM specs",
        "SELECT s FROM specs AS s",
        "SELECT row_to_json(s.*) FROM jobs AS j JOIN specs AS s ON s.job = j.id",
        "SELECT job FROM specs WHERE broker_password IS NOT NULL",
        "SELECT (SELECT sealed FROM tokens LIMIT 1) FROM v_jobs",
        "TABLE specs",
    ],
)
def test_sealed_secrets_are_not_shown(ask, sql):
    with pytest.raises(InvalidInput, match="sealed"):
        ask(sql)


def test_a_long_question_is_ended(ask):
    with pytest.raises(TimedOut):
        ask("SELECT count(*) FROM generate_series(1, 100000000000)", timeout_sec=0.2)
    assert ask("SELECT 1 AS x") == (["x"], [(1,)])


def test_a_nul_in_one_event_does_not_make_the_view_unreadable(url):
    said = {"a": "x\0\0y", "b": "\\u0000", "c": "\\\0", "d": "\\\\u0000", "e\0": 1}
    with Registry.open(url, create=True) as registry:
        registry.register(agent="codex", prompt="", job_id="j")
        assert registry.publish("j", "progress", data=said).data["a"] == "x\0\0y"
        rows = registry.engine.store.query("SELECT detail, data FROM v_events", limit=5, timeout_sec=20)[1]
    ((_, shown),) = rows
    assert json.loads(shown) == {name.replace("\0", "\ufffd"): at(value) for name, value in said.items()}


def at(value):
    """What the view shows in the place of a NUL."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


ODD_NUMBERS = [
    "1e-20000", "1e-100000", "-1e-400", "0e999999", "0.0e-999999", "1e308", "4.9e-324", "-0", "-0.0", "1E+2",
    "9007199254740991", "0." + "1" * 20_000, "1" * 300 + ".5", "0." + "0" * 60_000 + "1", "1" + "0" * 200 + "e-200",
    '"\\u0000"', '"\\\\u0000\\u0000"', '"\\ud83d\\ude00"', '{"\\u0000":[1e-20000]}',
    "[]", "{}", "null", " [ 1e-99999 ] ",
]  # fmt: skip


@pytest.mark.parametrize("engine", ["postgresql", "sqlite"])
def test_whatever_is_accepted_can_be_read(engine, url, tmp_path):
    """Every number that the protocol allows: in the view, among the events, and by a copy of the registry."""
    with Registry.open(url if engine == "postgresql" else tmp_path / "jobs.db", create=True) as registry:
        registry.register(agent="codex", prompt="", job_id="j", auth="never")
        for seq, literal in enumerate(ODD_NUMBERS, 1):
            raw = (
                f'{{"schema_version":1,"seq":{seq},"job_id":"j","event":"progress","timestamp":"2026-06-19T09:32:00Z",'
                f'"detail":"","data":{{"hmac_kid":1,"n":{literal},"hmac_sig":"00"}}}}'
            )
            assert registry.accept(raw, subscriber="s").verdict == "accepted", literal[:40]
        question = "SELECT seq, data, timestamp, detail FROM v_events ORDER BY seq"
        rows = registry.engine.store.query(question, limit=100, timeout_sec=20)[1]
        assert [row[0] for row in rows] == list(range(1, len(ODD_NUMBERS) + 1))
        events = registry.events("j", limit=100)
        for (seq, shown, _, _), literal in zip(rows, ODD_NUMBERS, strict=True):
            expected = literal if engine == "sqlite" else literal.replace("\\u0000", "\\ufffd", 1)
            if literal != '"\\\\u0000\\u0000"':
                assert json.loads(shown) == {"n": json.loads(expected)}, literal[:40]
            assert events[seq - 1].data["n"] == json.loads(literal)
