-- v_events reads every event that was ever accepted. A number such as 1e-20000 is a double to the protocol (zero) and
-- beyond what jsonb and numeric hold, and one event with it made the whole view unreadable. The type json keeps the text
-- of a number and never asks for its value, so data is put together from that text, as on SQLite.

CREATE FUNCTION event_data(data JSON) RETURNS TEXT LANGUAGE SQL IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN json_typeof(data) = 'object' THEN (
    SELECT '{' || COALESCE(string_agg(to_json(m.name)::TEXT || ':' || m.value::TEXT, ',' ORDER BY m.place), '') || '}'
    FROM json_each(data) WITH ORDINALITY AS m (name, value, place)
    WHERE m.name NOT IN ('hmac_sig', 'hmac_kid', 'attempt')
) ELSE data::TEXT END;

CREATE OR REPLACE VIEW v_events AS
SELECT j.job_id, e.seq, e.event,
       json_without_nul(e.payload) ->> 'timestamp' AS timestamp,
       json_without_nul(e.payload) ->> 'detail' AS detail,
       event_data(json_without_nul(e.payload) -> 'data') AS data,
       e.attempt, utc_time(e.recorded_ms) AS recorded_at, j.agent,
       CASE WHEN EXISTS (SELECT 1 FROM outbox AS o WHERE o.event = e.id) THEN 1 ELSE 0 END AS waits_for_broker
FROM events AS e JOIN jobs AS j ON j.id = e.job;
