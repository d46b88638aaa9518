-- What people may look at: stable views without secrets, for `jobdb query` and dashboards. The same columns as on
-- SQLite. Columns are added at the end and never renamed. Times are UTC, YYYY-MM-DDTHH:MM:SSZ.

CREATE FUNCTION utc_time(ms BIGINT) RETURNS TEXT LANGUAGE SQL IMMUTABLE PARALLEL SAFE
RETURN to_char(to_timestamp(ms / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');

-- PostgreSQL takes no NUL out of JSON, not even an escaped one: one event with it would make the whole view unreadable.
CREATE FUNCTION json_without_nul(payload TEXT) RETURNS JSON LANGUAGE SQL IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN position('\u0000' IN payload) = 0 THEN payload
            ELSE regexp_replace(payload, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g') END::JSON;

CREATE VIEW v_jobs AS
SELECT j.job_id, j.status, j.agent, j.agent_session, j.priority, s.prompt, j.last_seq, j.last_event, j.detail,
       j.attempt, j.strikes, j.worker,
       utc_time(j.lease_until_ms) AS lease_expires_at, utc_time(j.created_ms) AS created_at,
       utc_time(j.updated_ms) AS updated_at, utc_time(j.started_ms) AS started_at,
       utc_time(j.finished_ms) AS finished_at, utc_time(j.last_event_ms) AS last_event_at,
       (j.finished_ms - j.started_ms) / 1000.0 AS duration_sec,
       j.timeout_sec, j.idle_timeout_sec, j.topic_prefix, s.expected_artifacts, s.extra,
       CASE WHEN j.kid > 0 THEN 'required' ELSE 'never' END AS auth
FROM jobs AS j JOIN specs AS s ON s.job = j.id;

CREATE VIEW v_events AS
SELECT j.job_id, e.seq, e.event,
       json_without_nul(e.payload) ->> 'timestamp' AS timestamp,
       json_without_nul(e.payload) ->> 'detail' AS detail,
       ((json_without_nul(e.payload) ->> 'data')::jsonb - 'hmac_sig' - 'hmac_kid' - 'attempt')::text AS data,
       e.attempt, utc_time(e.recorded_ms) AS recorded_at, j.agent,
       CASE WHEN EXISTS (SELECT 1 FROM outbox AS o WHERE o.event = e.id) THEN 1 ELSE 0 END AS waits_for_broker
FROM events AS e JOIN jobs AS j ON j.id = e.job;

CREATE VIEW v_subscriptions AS
SELECT s.subscriber, j.job_id, j.status AS job_status, s.start_seq, s.last_seq, s.handled_seq,
       j.last_seq AS job_last_seq, j.last_seq - s.last_seq AS behind,
       utc_time(s.created_ms) AS created_at, utc_time(s.last_event_ms) AS last_event_at
FROM subscriptions AS s JOIN jobs AS j ON j.id = s.job;

CREATE VIEW v_refusals AS
SELECT r.id AS number, j.job_id, r.subscriber, r.verdict, r.seq, utc_time(r.recorded_ms) AS recorded_at, r.reason
FROM refusals AS r JOIN jobs AS j ON j.id = r.job;

CREATE VIEW v_verdicts AS
SELECT j.job_id, v.verdict, v.count, utc_time(v.last_ms) AS last_at
FROM verdict_counts AS v LEFT JOIN jobs AS j ON j.id = v.job;
