"""Test ad-hoc queries on PostgreSQL: they only read, and no sealed secret."""

import json
import sqlite3

import pytest

from jobdb import InvalidInput, JobdbError, Registry, TimedOut, Vault
from jobdb.operations.copy import copy_registry
from tests.support.keys import MASTER_KEY


@pytest.fixture(scope="module")
def run_query(postgres_server):
    import psycopg

    schema = "questions"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    url = postgres_server.url(schema=schema)
    with Registry.open(url, create=True, vault=Vault.open(env={"JOBDB_KEY": MASTER_KEY})) as registry:
        registry.register(agent="codex", prompt="100 % of it", job_id="j")
        yield lambda sql, **more: registry.engine.store.query(sql, **{"limit": 10, "timeout_sec": 20, **more})


def test_selects_on_the_views_return_rows(run_query):
    assert run_query("SELECT job_id, agent FROM v_jobs WHERE prompt LIKE '100 %'") == (
        ["job_id", "agent"],
        [("j", "codex")],
    )
    assert run_query("WITH n AS (SELECT generate_series(1, 50) AS i) SELECT i FROM n", limit=3)[1] == [(1,), (2,), (3,)]
    assert run_query("SELECT 1 AS one WHERE false;  ") == (["one"], [])
    assert run_query("SELECT count(*), count(agent) FROM v_jobs -- both") == (["count", "count"], [(1, 1)])
    assert run_query("SELECT count(*) AS n FROM jobs AS j JOIN events AS e ON e.job = j.id")[1] == [(0,)]


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
def test_anything_else_is_refused(run_query, sql):
    before = run_query("SELECT count(*) FROM v_jobs")
    with pytest.raises(InvalidInput):
        run_query(sql)
    assert run_query("SELECT count(*) FROM v_jobs") == before


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
def test_sealed_secrets_are_not_shown(run_query, sql):
    with pytest.raises(InvalidInput, match="sealed"):
        run_query(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT query_to_xml('SELECT sealed FROM tokens', true, false, '')",
        "SELECT query_to_xml_and_xmlschema('SELECT sealed FROM tokens', true, false, '')",
        "SELECT pg_catalog.\"query_to_xml\"('TA' || 'BLE tokens', true, false, '')",
        "SELECT table_to_xml('tokens', true, false, '')",
        "SELECT table_to_xml(('tok' || 'ens')::regclass, true, false, '') FROM v_jobs",
        "SELECT table_to_xml_and_xmlschema('tokens', true, false, '')",
        "SELECT schema_to_xml(current_schema(), true, false, '')",
        "SELECT schema_to_xml_and_xmlschema('public', true, false, '')",
        "SELECT database_to_xml(true, false, '')",
        "SELECT cursor_to_xml('c', 1, true, false, '')",
        "SELECT * FROM ts_stat('SELECT to_tsvector(encode(sealed, ''hex'')) FROM tokens')",
        "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ''b''::tsquery FROM tokens')",
        "SELECT 1 FROM v_jobs WHERE xmlexists('/*' PASSING query_to_xml('TABLE tokens', true, false, ''))",
        "SELECT x FROM v_jobs, LATERAL (SELECT table_to_xml('tokens', true, false, '') AS x OFFSET 0) AS q",
        "SELECT count(*) FILTER (WHERE table_to_xml('tokens', true, false, '') IS NULL) FROM v_jobs",
        "SELECT job_id FROM v_jobs ORDER BY table_to_xml('tokens', true, false, '')::text",
        "SELECT job_id FROM v_jobs LIMIT length(table_to_xml('tokens', true, false, '')::text)",
        "SELECT sum(pg_sleep(1)::text::int) OVER () FROM v_jobs",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT * FROM pg_ls_dir('.')",
        "SELECT pg_read_binary_file('PG_VERSION')",
        "SELECT lo_get(1)",
        "SELECT lo_import('/etc/passwd')",
        "SELECT current_setting('data_directory')",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_sleep(0)",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT nextval('events_id_seq')",
        "SELECT most_common_vals FROM pg_stats WHERE tablename = 'tokens'",
        "SELECT * FROM pg_statistic",
        "SELECT rolpassword FROM pg_authid",
        "SELECT query FROM pg_stat_activity",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM pg_largeobject",
        "SELECT value FROM settings",
        "SELECT * FROM jobdb_migrations",
        "SELECT jobdb_now_ms()",
    ],
)
def test_only_the_registry_is_readable_and_no_function_runs_its_own_sql(run_query, sql):
    with pytest.raises(InvalidInput, match=r"not a view of the registry|is not run|sealed"):
        run_query(sql)


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE FUNCTION {0}.leak() RETURNS SETOF bytea LANGUAGE SQL IMMUTABLE AS 'SELECT sealed FROM {0}.tokens'",
        "CREATE VIEW {0}.leak AS SELECT 1 AS one FROM {0}.tokens",
    ],
)
def test_objects_that_others_created_in_the_schema_are_refused(url, definition):
    import psycopg

    with Registry.open(url, create=True) as registry, psycopg.connect(url, autocommit=True) as connection:
        (schema,) = connection.execute("SELECT current_schema()").fetchone()
        connection.execute(definition.format(schema).encode())
        for sql in ("SELECT * FROM leak()", "SELECT leak()", "SELECT * FROM leak"):
            with pytest.raises(InvalidInput):
                registry.engine.store.query(sql, limit=5, timeout_sec=20)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT agent, count(*), max(created_at), string_agg(job_id, ',' ORDER BY job_id) FROM v_jobs GROUP BY agent",
        "SELECT date_trunc('day', created_at::timestamptz)::date, avg(duration_sec)::numeric FROM v_jobs GROUP BY 1",
        "SELECT job_id, rank() OVER (PARTITION BY agent ORDER BY created_at) FROM v_jobs",
        "SELECT to_char(now() - created_at::timestamptz, 'HH24') FROM v_jobs WHERE created_at < to_char(now(), 'YYYY')",
        "SELECT extra::jsonb ->> 'k', jsonb_array_length(expected_artifacts::jsonb) FROM v_jobs",
        "SELECT * FROM v_jobs, jsonb_array_elements_text(expected_artifacts::jsonb) AS path",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_sec) FROM v_jobs",
        "SELECT coalesce(detail, '-'), upper(agent), length(prompt), prompt ~* 'it$', md5(prompt) FROM v_jobs",
        "SELECT json_agg(row_to_json(j)) FROM v_jobs AS j",
        "SELECT e.event, j.agent FROM v_events AS e JOIN v_jobs AS j USING (job_id) WHERE e.seq IN (1, 2, 3)",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
        "SELECT verdict, sum(count) FROM v_verdicts GROUP BY ROLLUP (verdict)",
        "SELECT 'tokens', 'query_to_xml(1)' FROM v_jobs WHERE prompt <> ':funcid 2923'",
        "SELECT day::date FROM generate_series(now() - interval '3 days', now(), '1 day') AS day",
        "VALUES (1, 'a'), (2, 'b')",
    ],
)
def test_ordinary_queries_are_run(run_query, sql):
    columns, rows = run_query(sql)
    assert columns and all(len(row) == len(columns) for row in rows)


def test_the_documented_reader_role_can_only_query(url):
    """The roles and grants as docs/deployment.md gives them."""
    import psycopg

    with Registry.open(url, create=True) as registry, psycopg.connect(url, autocommit=True) as connection:
        registry.register(agent="codex", prompt="p", job_id="j")
        (schema,) = connection.execute("SELECT current_schema()").fetchone()
        connection.execute(b"DROP ROLE IF EXISTS jobs_reader")
        connection.execute(b"CREATE ROLE jobs_reader LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO jobs_reader".encode())
        views = "v_jobs, v_events, v_subscriptions, v_refusals, v_verdicts, v_workers, v_attempts"
        connection.execute(f"GRANT SELECT ON {views} TO jobs_reader".encode())
        try:
            # Also where the grant on the schema's version is not given.
            for more in ("SELECT 1", "GRANT SELECT ON jobdb_migrations TO jobs_reader"):
                connection.execute(more.encode())
                with Registry.open(as_role(url, "jobs_reader")) as reading:
                    asked = reading.engine.store.query("SELECT job_id FROM v_jobs", limit=5, timeout_sec=20)
                    assert asked == (["job_id"], [("j",)])
                    for sql in ("SELECT sealed FROM tokens", "SELECT * FROM jobs"):
                        with pytest.raises(InvalidInput):
                            reading.engine.store.query(sql, limit=5, timeout_sec=20)
                    with pytest.raises(JobdbError, match="may not do this"):
                        reading.register(agent="a", prompt="p")
                    with pytest.raises(JobdbError, match="may not do this"):
                        reading.get("j")
        finally:
            connection.execute(b"DROP OWNED BY jobs_reader")
            connection.execute(b"DROP ROLE jobs_reader")


def as_role(url: str, role: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}user={role}"


def test_a_long_query_is_cancelled(run_query):
    with pytest.raises(TimedOut):
        run_query("SELECT count(*) FROM generate_series(1, 100000000000)", timeout_sec=0.2)
    assert run_query("SELECT 1 AS x") == (["x"], [(1,)])


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT sum(n) FROM generate_series(1, 3::bigint) AS n", 6),
        ("SELECT avg(n) FROM generate_series(1, 4) AS n", 2.5),
        ("SELECT 'NaN'::float8 = 'NaN'::numeric", True),
        ("SELECT 1e300::numeric + 0.5", 1e300),
        ("SELECT 1e400::numeric", "1" + "0" * 400),
        ("SELECT date 'infinity'", "infinity"),
        ("SELECT timestamp '10000-01-01'", "10000-01-01 00:00:00"),
        ("SELECT time '24:00'", "24:00:00"),
        ("SELECT interval '1 day' * 1e9", "1000000000 days"),
        ("SELECT ARRAY[1, 2]", "{1,2}"),
        ("SELECT ROW(1, 2)", "(1,2)"),
        ("""SELECT '{"a": 1e999}'::json""", '{"a": 1e999}'),
        ("SELECT '00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
        ("SELECT '\\x00ff'::bytea", b"\0\xff"),
    ],
)
def test_results_contain_only_plain_values(run_query, sql, value):
    ((found,),) = run_query(sql)[1]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "sql",
    ["SELECT chr(0)", "SELECT lpad('x', 1000000000, 'y')", "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
     "SELECT " + ", ".join(["1"] * 2_000), "SELECT num_nulls(" + ", ".join(["1"] * 200) + ")"],
)  # fmt: skip
def test_a_query_that_exceeds_a_limit_is_invalid_input(run_query, sql):
    with pytest.raises(InvalidInput):
        run_query(sql)


def test_the_size_of_a_result_is_bounded(run_query):
    with pytest.raises(InvalidInput, match="larger than 256 MiB"):
        run_query("SELECT repeat('x', 20000000) FROM generate_series(1, 1000)", limit=10_000)
    assert len(run_query("SELECT n FROM generate_series(1, 5000) AS n", limit=4_000)[1]) == 4_000


def test_a_nul_in_one_event_does_not_make_the_view_unreadable(url):
    said = {"a": "x\0\0y", "b": "\\u0000", "c": "\\\0", "d": "\\\\u0000", "e\0": 1}
    with Registry.open(url, create=True) as registry:
        registry.register(agent="codex", prompt="", job_id="j")
        assert registry.publish("j", "progress", data=said).data["a"] == "x\0\0y"
        rows = registry.engine.store.query("SELECT detail, data FROM v_events", limit=5, timeout_sec=20)[1]
    ((_, shown),) = rows
    assert json.loads(shown) == {name.replace("\0", "\ufffd"): at(value) for name, value in said.items()}


def at(value):
    """Return the value as the view shows it, with a NUL replaced."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def test_a_copy_reports_what_the_server_cannot_store(url, tmp_path):
    with Registry.open(tmp_path / "jobs.db", create=True) as source:
        source.register(agent="codex", prompt="p", job_id="j")
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.execute("UPDATE jobs SET agent_session = 'a' || char(0)")
    with (
        Registry.open(tmp_path / "jobs.db") as source,
        Registry.open(url, create=True) as target,
        pytest.raises(InvalidInput, match="agent_session of the row in table jobs"),
    ):
        copy_registry(source, target)
