-- What people may look at: stable views without secrets, for `jobdb query`, `jobdb ui` and dashboards.
-- Columns are added at the end and never renamed. Times are UTC, YYYY-MM-DDTHH:MM:SSZ.

CREATE VIEW v_jobs AS
SELECT j.job_id, j.status, j.agent, j.agent_session, j.priority, s.prompt, j.last_seq, j.last_event, j.detail,
       j.attempt, j.strikes, j.worker,
       strftime('%Y-%m-%dT%H:%M:%SZ', j.lease_until_ms / 1000, 'unixepoch') AS lease_expires_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', j.created_ms / 1000, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', j.updated_ms / 1000, 'unixepoch') AS updated_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', j.started_ms / 1000, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', j.finished_ms / 1000, 'unixepoch') AS finished_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', j.last_event_ms / 1000, 'unixepoch') AS last_event_at,
       (j.finished_ms - j.started_ms) / 1000.0 AS duration_sec,
       j.timeout_sec, j.idle_timeout_sec, j.topic_prefix, s.expected_artifacts, s.extra,
       CASE WHEN j.kid > 0 THEN 'required' ELSE 'never' END AS auth
FROM jobs AS j JOIN specs AS s ON s.job = j.id;

CREATE VIEW v_events AS
SELECT j.job_id, e.seq, e.event,
       json_extract(e.payload, '$.timestamp') AS timestamp,
       json_extract(e.payload, '$.detail') AS detail,
       json_remove(json_extract(e.payload, '$.data'), '$.hmac_sig', '$.hmac_kid', '$.attempt') AS data,
       e.attempt,
       strftime('%Y-%m-%dT%H:%M:%SZ', e.recorded_ms / 1000, 'unixepoch') AS recorded_at,
       j.agent,
       EXISTS (SELECT 1 FROM outbox AS o WHERE o.event = e.id) AS waits_for_broker
FROM events AS e JOIN jobs AS j ON j.id = e.job;

CREATE VIEW v_subscriptions AS
SELECT s.subscriber, j.job_id, j.status AS job_status, s.start_seq, s.last_seq, s.handled_seq,
       j.last_seq AS job_last_seq, j.last_seq - s.last_seq AS behind,
       strftime('%Y-%m-%dT%H:%M:%SZ', s.created_ms / 1000, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', s.last_event_ms / 1000, 'unixepoch') AS last_event_at
FROM subscriptions AS s JOIN jobs AS j ON j.id = s.job;

CREATE VIEW v_refusals AS
SELECT r.id AS number, j.job_id, r.subscriber, r.verdict, r.seq,
       strftime('%Y-%m-%dT%H:%M:%SZ', r.recorded_ms / 1000, 'unixepoch') AS recorded_at, r.reason
FROM refusals AS r JOIN jobs AS j ON j.id = r.job;

CREATE VIEW v_verdicts AS
SELECT j.job_id, v.verdict, v.count,
       strftime('%Y-%m-%dT%H:%M:%SZ', v.last_ms / 1000, 'unixepoch') AS last_at
FROM verdict_counts AS v LEFT JOIN jobs AS j ON j.id = v.job;
