-- Statements of copy: every table, in an order that satisfies the references, read and written with the same columns.

-- copy_set_timeouts: raise the timeouts, since either side may wait long for the other.
SELECT 1;

-- copy_lock: lock the target against other writers until the copy is committed.
SELECT 1;

-- copy_create_sequence: create SQLite's record of the last event number, which is missing before the first event.
INSERT INTO sqlite_sequence (name, seq)
SELECT 'events', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events');

-- copy_advance_sequence: continue after the copied numbers, and after those of pruned events that feeds have seen.
UPDATE sqlite_sequence
SET seq = max(seq, (SELECT COALESCE(max(event), 0) FROM feeds), (SELECT COALESCE(max(start_event), 0) FROM feeds))
WHERE name = 'events';

-- copy_read_settings: the settings that belong to the jobs rather than the place: the id of the key under which secrets
-- are sealed, and the key of the token fingerprints.
SELECT name, value FROM settings WHERE name IN ('key_id', 'fingerprint_key');

-- copy_write_settings: a row of settings.
INSERT INTO settings (name, value) VALUES (:name, :value);

-- copy_read_jobs: the current state of each job.
SELECT id, job_id, status, agent, agent_session, priority, topic_prefix, timeout_sec, idle_timeout_sec, has_broker,
       kid, last_seq, terminal_seq, attempt, strikes, worker, lease_until_ms, created_ms, updated_ms, started_ms,
       finished_ms, last_event, last_event_ms, detail, idempotency_key, lease_ms, max_attempts,
       not_before_ms, delay_ms
FROM jobs ORDER BY id;

-- copy_write_jobs: a row of jobs.
INSERT INTO jobs (id, job_id, status, agent, agent_session, priority, topic_prefix, timeout_sec, idle_timeout_sec,
       has_broker, kid, last_seq, terminal_seq, attempt, strikes, worker, lease_until_ms, created_ms,
       updated_ms, started_ms, finished_ms, last_event, last_event_ms, detail, idempotency_key, lease_ms,
       max_attempts, not_before_ms, delay_ms)
VALUES (:id, :job_id, :status, :agent, :agent_session, :priority, :topic_prefix, :timeout_sec, :idle_timeout_sec,
       :has_broker, :kid, :last_seq, :terminal_seq, :attempt, :strikes, :worker, :lease_until_ms,
       :created_ms, :updated_ms, :started_ms, :finished_ms, :last_event, :last_event_ms, :detail, :idempotency_key,
       :lease_ms, :max_attempts, :not_before_ms, :delay_ms);

-- copy_read_specs: the immutable part of each job.
SELECT job, prompt, broker, broker_password, expected_artifacts, extra
FROM specs ORDER BY job;

-- copy_write_specs: a row of specs.
INSERT INTO specs (job, prompt, broker, broker_password, expected_artifacts, extra)
VALUES (:job, :prompt, :broker, :broker_password, :expected_artifacts, :extra);

-- copy_read_tokens: the jobs' tokens, sealed.
SELECT job, kid, sealed, imported, created_ms, expires_ms, revoked_ms, remembered, overlap_ms, ended_ms
FROM tokens ORDER BY job, kid;

-- copy_write_tokens: a row of tokens.
INSERT INTO tokens (job, kid, sealed, imported, created_ms, expires_ms, revoked_ms, remembered, overlap_ms, ended_ms)
VALUES (:job, :kid, :sealed, :imported, :created_ms, :expires_ms, :revoked_ms, :remembered, :overlap_ms, :ended_ms);

-- copy_read_events: the recorded events.
SELECT id, job, seq, event, attempt, recorded_ms, digest, payload
FROM events ORDER BY id;

-- copy_write_events: a row of events.
INSERT INTO events (id, job, seq, event, attempt, recorded_ms, digest, payload)
VALUES (:id, :job, :seq, :event, :attempt, :recorded_ms, :digest, :payload);

-- copy_read_outbox: events that wait for the broker.
SELECT event, job
FROM outbox ORDER BY event;

-- copy_write_outbox: a row of outbox.
INSERT INTO outbox (event, job)
VALUES (:event, :job);

-- copy_read_subscriptions: subscribers of single jobs.
SELECT id, job, subscriber, start_seq, last_seq, handled_seq, created_ms, last_event_ms
FROM subscriptions ORDER BY id;

-- copy_write_subscriptions: a row of subscriptions.
INSERT INTO subscriptions (id, job, subscriber, start_seq, last_seq, handled_seq, created_ms, last_event_ms)
VALUES (:id, :job, :subscriber, :start_seq, :last_seq, :handled_seq, :created_ms, :last_event_ms);

-- copy_read_gaps: the ranges of seqs that subscribers skipped.
SELECT subscription, first_seq, last_seq
FROM gaps ORDER BY subscription, first_seq;

-- copy_write_gaps: a row of gaps.
INSERT INTO gaps (subscription, first_seq, last_seq)
VALUES (:subscription, :first_seq, :last_seq);

-- copy_read_feeds: subscribers of all jobs.
SELECT subscriber, start_event, event
FROM feeds ORDER BY subscriber;

-- copy_write_feeds: a row of feeds.
INSERT INTO feeds (subscriber, start_event, event)
VALUES (:subscriber, :start_event, :event);

-- copy_read_verdict_counts: the number of times each verdict was given.
SELECT job, verdict, count, last_ms
FROM verdict_counts ORDER BY job, verdict;

-- copy_write_verdict_counts: a row of verdict_counts.
INSERT INTO verdict_counts (job, verdict, count, last_ms)
VALUES (:job, :verdict, :count, :last_ms);

-- copy_read_refusals: refused events.
SELECT id, job, subscriber, verdict, seq, recorded_ms, digest, reason, payload
FROM refusals ORDER BY id;

-- copy_write_refusals: a row of refusals.
INSERT INTO refusals (id, job, subscriber, verdict, seq, recorded_ms, digest, reason, payload)
VALUES (:id, :job, :subscriber, :verdict, :seq, :recorded_ms, :digest, :reason, :payload);

-- copy_read_imports: the origin of jobs that were imported from an old registry.
SELECT job, updated_ms, record_seq, job_seq, absent, event_form, event_digest, audit_form, audit_digest
FROM imports ORDER BY job;

-- copy_write_imports: a row of imports.
INSERT INTO imports (job, updated_ms, record_seq, job_seq, absent, event_form, event_digest, audit_form,
       audit_digest)
VALUES (:job, :updated_ms, :record_seq, :job_seq, :absent, :event_form, :event_digest, :audit_form, :audit_digest);

-- copy_read_import_lines: the lines of an old registry's logs that are not events.
SELECT job, log, number, raw
FROM import_lines ORDER BY job, log, number;

-- copy_write_import_lines: a row of import_lines.
INSERT INTO import_lines (job, log, number, raw)
VALUES (:job, :log, :number, :raw);

-- copy_read_token_fingerprints: the fingerprints of tokens that were used before.
SELECT fingerprint, job_id
FROM token_fingerprints ORDER BY fingerprint, job_id;

-- copy_write_token_fingerprints: a row of token_fingerprints.
INSERT INTO token_fingerprints (fingerprint, job_id)
VALUES (:fingerprint, :job_id);

-- copy_read_tombstones: the ids of pruned jobs, whose reuse is restricted.
SELECT job_id, unremembered, pruned_ms
FROM tombstones ORDER BY job_id;

-- copy_write_tombstones: a row of tombstones.
INSERT INTO tombstones (job_id, unremembered, pruned_ms)
VALUES (:job_id, :unremembered, :pruned_ms);

-- copy_read_questions: the questions of agents and their answers.
SELECT id, job, key, attempt, text, choices, seq, asked_ms, answer, message, answered_by, answered_ms, acknowledged
FROM questions ORDER BY id;

-- copy_write_questions: a row of questions.
INSERT INTO questions (id, job, key, attempt, text, choices, seq, asked_ms, answer, message, answered_by, answered_ms,
       acknowledged)
VALUES (:id, :job, :key, :attempt, :text, :choices, :seq, :asked_ms, :answer, :message, :answered_by, :answered_ms,
       :acknowledged);

-- copy_read_attempts: the attempts of workers, with the paths of their logs.
SELECT job, attempt, worker, worker_id, host, log, started_ms
FROM attempts ORDER BY job, attempt;

-- copy_write_attempts: a row of attempts.
INSERT INTO attempts (job, attempt, worker, worker_id, host, log, started_ms)
VALUES (:job, :attempt, :worker, :worker_id, :host, :log, :started_ms);
