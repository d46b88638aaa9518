-- Statements of copy: every table as it is, in an order in which references hold. Read and written by the same columns.

-- copy_set_timeouts: the one side may wait long for the other.
SELECT 1;

-- copy_lock: nobody else writes into the target until it is done.
SELECT 1;

-- copy_create_sequence: SQLite's note of the last number given out; it has none before the first event.
INSERT INTO sqlite_sequence (name, seq)
SELECT 'events', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events');

-- copy_advance_sequence: the next numbers follow those that were copied, and those that feeds have seen of events long pruned.
UPDATE sqlite_sequence
SET seq = max(seq, (SELECT COALESCE(max(event), 0) FROM feeds), (SELECT COALESCE(max(start_event), 0) FROM feeds))
WHERE name = 'events';

-- copy_read_settings: the facts that belong to the jobs and not to the place: what their secrets are sealed under, and
-- what their tokens are told by.
SELECT name, value FROM settings WHERE name IN ('key_id', 'fingerprint_key');

-- copy_write_settings: the same.
INSERT INTO settings (name, value) VALUES (:name, :value);

-- copy_read_jobs: the jobs' states.
SELECT id, job_id, status, agent, agent_session, priority, topic_prefix, timeout_sec, idle_timeout_sec, has_broker,
       kid, last_seq, terminal_seq, attempt, strikes, worker, lease_until_ms, created_ms, updated_ms, started_ms,
       finished_ms, last_event, last_event_ms, detail, idempotency_key, lease_ms
FROM jobs ORDER BY id;

-- copy_write_jobs: the same.
INSERT INTO jobs (id, job_id, status, agent, agent_session, priority, topic_prefix, timeout_sec, idle_timeout_sec,
       has_broker, kid, last_seq, terminal_seq, attempt, strikes, worker, lease_until_ms, created_ms,
       updated_ms, started_ms, finished_ms, last_event, last_event_ms, detail, idempotency_key, lease_ms)
VALUES (:id, :job_id, :status, :agent, :agent_session, :priority, :topic_prefix, :timeout_sec, :idle_timeout_sec,
       :has_broker, :kid, :last_seq, :terminal_seq, :attempt, :strikes, :worker, :lease_until_ms,
       :created_ms, :updated_ms, :started_ms, :finished_ms, :last_event, :last_event_ms, :detail, :idempotency_key,
       :lease_ms);

-- copy_read_specs: what does not change of them.
SELECT job, prompt, broker, broker_password, expected_artifacts, extra
FROM specs ORDER BY job;

-- copy_write_specs: the same.
INSERT INTO specs (job, prompt, broker, broker_password, expected_artifacts, extra)
VALUES (:job, :prompt, :broker, :broker_password, :expected_artifacts, :extra);

-- copy_read_tokens: their tokens, sealed.
SELECT job, kid, sealed, imported, created_ms, expires_ms, revoked_ms, remembered, overlap_ms, ended_ms
FROM tokens ORDER BY job, kid;

-- copy_write_tokens: the same.
INSERT INTO tokens (job, kid, sealed, imported, created_ms, expires_ms, revoked_ms, remembered, overlap_ms, ended_ms)
VALUES (:job, :kid, :sealed, :imported, :created_ms, :expires_ms, :revoked_ms, :remembered, :overlap_ms, :ended_ms);

-- copy_read_events: what was said.
SELECT id, job, seq, event, attempt, recorded_ms, digest, payload
FROM events ORDER BY id;

-- copy_write_events: the same.
INSERT INTO events (id, job, seq, event, attempt, recorded_ms, digest, payload)
VALUES (:id, :job, :seq, :event, :attempt, :recorded_ms, :digest, :payload);

-- copy_read_outbox: what waits for the broker.
SELECT event, job
FROM outbox ORDER BY event;

-- copy_write_outbox: the same.
INSERT INTO outbox (event, job)
VALUES (:event, :job);

-- copy_read_subscriptions: who observes.
SELECT id, job, subscriber, start_seq, last_seq, handled_seq, created_ms, last_event_ms
FROM subscriptions ORDER BY id;

-- copy_write_subscriptions: the same.
INSERT INTO subscriptions (id, job, subscriber, start_seq, last_seq, handled_seq, created_ms, last_event_ms)
VALUES (:id, :job, :subscriber, :start_seq, :last_seq, :handled_seq, :created_ms, :last_event_ms);

-- copy_read_gaps: what observers skipped.
SELECT subscription, first_seq, last_seq
FROM gaps ORDER BY subscription, first_seq;

-- copy_write_gaps: the same.
INSERT INTO gaps (subscription, first_seq, last_seq)
VALUES (:subscription, :first_seq, :last_seq);

-- copy_read_feeds: who observes all jobs.
SELECT subscriber, start_event, event
FROM feeds ORDER BY subscriber;

-- copy_write_feeds: the same.
INSERT INTO feeds (subscriber, start_event, event)
VALUES (:subscriber, :start_event, :event);

-- copy_read_verdict_counts: how often each verdict was given.
SELECT job, verdict, count, last_ms
FROM verdict_counts ORDER BY job, verdict;

-- copy_write_verdict_counts: the same.
INSERT INTO verdict_counts (job, verdict, count, last_ms)
VALUES (:job, :verdict, :count, :last_ms);

-- copy_read_refusals: refused events.
SELECT id, job, subscriber, verdict, seq, recorded_ms, digest, reason, payload
FROM refusals ORDER BY id;

-- copy_write_refusals: the same.
INSERT INTO refusals (id, job, subscriber, verdict, seq, recorded_ms, digest, reason, payload)
VALUES (:id, :job, :subscriber, :verdict, :seq, :recorded_ms, :digest, :reason, :payload);

-- copy_read_imports: what came out of the old registry.
SELECT job, updated_ms, record_seq, job_seq, absent, event_form, event_digest, audit_form, audit_digest
FROM imports ORDER BY job;

-- copy_write_imports: the same.
INSERT INTO imports (job, updated_ms, record_seq, job_seq, absent, event_form, event_digest, audit_form,
       audit_digest)
VALUES (:job, :updated_ms, :record_seq, :job_seq, :absent, :event_form, :event_digest, :audit_form, :audit_digest);

-- copy_read_import_lines: the lines of its logs that are no events.
SELECT job, log, number, raw
FROM import_lines ORDER BY job, log, number;

-- copy_write_import_lines: the same.
INSERT INTO import_lines (job, log, number, raw)
VALUES (:job, :log, :number, :raw);

-- copy_read_token_fingerprints: which tokens were given before.
SELECT fingerprint, job_id
FROM token_fingerprints ORDER BY fingerprint, job_id;

-- copy_write_token_fingerprints: the same.
INSERT INTO token_fingerprints (fingerprint, job_id)
VALUES (:fingerprint, :job_id);

-- copy_read_tombstones: ids of pruned jobs that are not given to every job again.
SELECT job_id, unremembered, pruned_ms
FROM tombstones ORDER BY job_id;

-- copy_write_tombstones: the same.
INSERT INTO tombstones (job_id, unremembered, pruned_ms)
VALUES (:job_id, :unremembered, :pruned_ms);
