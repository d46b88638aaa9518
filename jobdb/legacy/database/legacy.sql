-- Statements of the import from the old registry, the export to it and the drop-in module, for every engine.

-- legacy_insert_job: inserts a job as in its record.
INSERT INTO jobs (job_id, status, agent, agent_session, topic_prefix, timeout_sec, idle_timeout_sec, has_broker, kid,
                  last_seq, attempt, terminal_seq, created_ms, updated_ms, started_ms, finished_ms, last_event,
                  last_event_ms, detail)
VALUES (:job_id, :status, :agent, :agent_session, :topic_prefix, :timeout_sec, :idle_timeout_sec, :has_broker, :kid,
        :last_seq, :attempt, :terminal_seq, :created_ms, :updated_ms, :started_ms, :finished_ms, :last_event,
        :last_event_ms, :detail);

-- legacy_last_row_id: the row id of the newest job.
SELECT COALESCE(max(id), 0) FROM jobs;

-- legacy_new_row_ids: the row ids that were assigned to new jobs.
SELECT job_id, id FROM jobs WHERE id > :after;

-- legacy_update_job: updates an existing job that has not changed here; one that has a token keeps requiring it.
UPDATE jobs
SET status = :status, agent = :agent, agent_session = :agent_session, topic_prefix = :topic_prefix,
    timeout_sec = :timeout_sec, idle_timeout_sec = :idle_timeout_sec, has_broker = :has_broker,
    kid = CASE WHEN kid > :kid THEN kid ELSE :kid END, last_seq = :last_seq,
    attempt = CASE WHEN attempt > :attempt THEN attempt ELSE :attempt END, terminal_seq = :terminal_seq, created_ms = :created_ms, updated_ms = :updated_ms,
    started_ms = COALESCE(started_ms, :started_ms), finished_ms = :finished_ms, last_event = :last_event,
    last_event_ms = :last_event_ms, detail = :detail, lease_until_ms = NULL
WHERE id = :job;

-- legacy_insert_spec: inserts the immutable part of a job.
INSERT INTO specs (job, prompt, broker, broker_password, expected_artifacts, extra)
VALUES (:job, :prompt, :broker, :broker_password, :expected_artifacts, :extra);

-- legacy_update_spec: updates the spec of an existing job.
UPDATE specs
SET prompt = :prompt, broker = :broker, broker_password = :broker_password,
    expected_artifacts = :expected_artifacts, extra = :extra
WHERE job = :job;

-- legacy_upsert_token: stores the record's token, or the placeholder for a key that nobody has.
INSERT INTO tokens (job, sealed, kid, imported, created_ms, expires_ms, revoked_ms)
VALUES (:job, :sealed, :kid, 1, :created_ms, :expires_ms, :revoked_ms)
ON CONFLICT (job, kid) DO UPDATE
SET sealed = excluded.sealed, imported = 1, expires_ms = excluded.expires_ms, revoked_ms = excluded.revoked_ms,
    overlap_ms = NULL, ended_ms = NULL, remembered = 0;

-- legacy_close_token: closes a key that was revoked or replaced elsewhere; an earlier end here is kept.
UPDATE tokens
SET revoked_ms = COALESCE(revoked_ms, :revoked_ms),
    expires_ms = CASE WHEN expires_ms < :expires_ms THEN expires_ms ELSE COALESCE(:expires_ms, expires_ms) END
WHERE job = :job AND kid = :kid;

-- legacy_raise_kid: raises the current version of a job's key.
UPDATE jobs SET kid = :kid WHERE id = :job AND kid < :kid;

-- legacy_keys: the versions of a job's token and their state.
SELECT kid, created_ms, expires_ms, revoked_ms FROM tokens WHERE job = :job ORDER BY kid;

-- legacy_highest_attempt: the highest attempt in a job's events.
SELECT COALESCE(max(attempt), 0) FROM events WHERE job = :job;

-- legacy_raise_attempt: raises the attempt of a job that was claimed more often than its events show.
UPDATE jobs SET attempt = :attempt WHERE id = :job AND attempt < :attempt;

-- legacy_subscriptions: each subscriber's position in a job, with a row for each skipped range.
SELECT s.subscriber, s.start_seq, s.last_seq, s.handled_seq, g.first_seq, g.last_seq
FROM subscriptions AS s LEFT JOIN gaps AS g ON g.subscription = s.id
WHERE s.job = :job ORDER BY s.subscriber, g.first_seq;

-- legacy_insert_subscription: inserts a subscriber that is new to the job.
INSERT INTO subscriptions (job, subscriber, start_seq, last_seq, handled_seq, created_ms)
VALUES (:job, :subscriber, :start_seq, :last_seq, :handled_seq, :now)
RETURNING id;

-- legacy_raise_subscription: advances a subscriber that has accepted more elsewhere.
UPDATE subscriptions
SET start_seq = CASE WHEN start_seq < :start_seq THEN start_seq ELSE :start_seq END, last_seq = :last_seq,
    handled_seq = CASE WHEN handled_seq > :handled_seq THEN handled_seq ELSE :handled_seq END
WHERE job = :job AND subscriber = :subscriber
RETURNING id;

-- legacy_delete_gaps: deletes a subscriber's gaps, which are written again.
DELETE FROM gaps WHERE subscription = :subscription;

-- legacy_insert_gap: inserts a range of seqs that a subscriber skipped.
INSERT INTO gaps (subscription, first_seq, last_seq) VALUES (:subscription, :first_seq, :last_seq);

-- legacy_upsert_import: stores facts about the job in the old registry.
INSERT INTO imports (job, updated_ms, record_seq, job_seq, absent, event_form, event_digest, audit_form,
                     audit_digest)
VALUES (:job, :updated_ms, :record_seq, :job_seq, :absent, :event_form, :event_digest, :audit_form, :audit_digest)
ON CONFLICT (job) DO UPDATE
SET updated_ms = excluded.updated_ms, record_seq = excluded.record_seq, job_seq = excluded.job_seq,
    absent = excluded.absent, event_form = excluded.event_form, event_digest = excluded.event_digest,
    audit_form = excluded.audit_form, audit_digest = excluded.audit_digest;

-- legacy_delete_lines: deletes a job's kept lines, which are written again.
DELETE FROM import_lines WHERE job = :job;

-- legacy_insert_line: inserts a line that is not an event.
INSERT INTO import_lines (job, log, number, raw) VALUES (:job, :log, :number, :raw);

-- legacy_insert_event: inserts an event from a log.
INSERT INTO events (job, seq, event, attempt, recorded_ms, digest, payload)
VALUES (:job, :seq, :event, :attempt, :recorded_ms, :digest, :payload);

-- legacy_raise_seq: raises the last_seq of a job whose log was ahead of its record.
UPDATE jobs SET last_seq = :last_seq WHERE id = :job AND last_seq < :last_seq;

-- legacy_digests: the digests of a job's recorded events.
SELECT seq, digest FROM events WHERE job = :job ORDER BY seq;

-- legacy_payloads: the payloads of a job's events.
SELECT seq, payload FROM events WHERE job = :job ORDER BY seq;

-- legacy_events: the events of a range of jobs.
SELECT job, seq, event, attempt, recorded_ms, digest, payload FROM events
WHERE job BETWEEN :first AND :last ORDER BY job, seq;

-- legacy_lines: the kept lines of all logs of a range of jobs, in order.
SELECT job, log, number, raw FROM import_lines WHERE job BETWEEN :first AND :last ORDER BY job, log, number;

-- legacy_job: one job with all columns that a record needs.
SELECT j.id AS row_id, j.job_id, j.status, j.created_ms, j.updated_ms, s.prompt, j.agent, j.agent_session, s.broker,
       s.broker_password, j.topic_prefix, j.timeout_sec, j.idle_timeout_sec, s.expected_artifacts, j.last_seq, j.kid,
       t.sealed AS token, t.revoked_ms AS token_revoked_ms, s.extra, i.updated_ms AS record_updated_ms, i.record_seq,
       i.job_seq, i.absent, i.event_form, i.event_digest, i.audit_form, i.audit_digest, j.attempt, j.worker,
       j.lease_until_ms, j.has_broker, j.terminal_seq, j.started_ms, j.finished_ms, j.last_event, j.last_event_ms,
       j.detail
FROM jobs AS j
JOIN specs AS s ON s.job = j.id
LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
LEFT JOIN imports AS i ON i.job = j.id
WHERE j.job_id = :job_id;

-- legacy_jobs: a range of jobs with all columns that a record needs, in order; the columns are those of ``legacy_job``.
SELECT j.id AS row_id, j.job_id, j.status, j.created_ms, j.updated_ms, s.prompt, j.agent, j.agent_session, s.broker,
       s.broker_password, j.topic_prefix, j.timeout_sec, j.idle_timeout_sec, s.expected_artifacts, j.last_seq, j.kid,
       t.sealed AS token, t.revoked_ms AS token_revoked_ms, s.extra, i.updated_ms AS record_updated_ms, i.record_seq,
       i.job_seq, i.absent, i.event_form, i.event_digest, i.audit_form, i.audit_digest, j.attempt, j.worker,
       j.lease_until_ms, j.has_broker, j.terminal_seq, j.started_ms, j.finished_ms, j.last_event, j.last_event_ms,
       j.detail
FROM jobs AS j
JOIN specs AS s ON s.job = j.id
LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
LEFT JOIN imports AS i ON i.job = j.id
WHERE j.id BETWEEN :first AND :last
ORDER BY j.id;

-- legacy_new_job_rows: all columns that an import writes for new jobs, in order; the sealed secrets first.
SELECT j.id AS row_id, j.kid, CASE WHEN t.revoked_ms IS NULL THEN t.sealed END AS sealed_token,
       s.broker_password AS sealed_password, j.job_id, j.status, j.agent, j.agent_session, j.topic_prefix,
       j.timeout_sec, j.idle_timeout_sec, j.has_broker, j.kid, j.last_seq, j.attempt, j.terminal_seq, j.created_ms,
       j.updated_ms, j.started_ms, j.finished_ms, j.last_event, j.last_event_ms, j.detail, s.prompt, s.broker,
       s.expected_artifacts, s.extra, i.updated_ms, i.record_seq, i.job_seq, i.absent, i.event_form, i.event_digest,
       i.audit_form, i.audit_digest, t.kid, t.imported, t.created_ms, t.expires_ms, t.revoked_ms, j.worker,
       j.lease_until_ms
FROM jobs AS j
JOIN specs AS s ON s.job = j.id
JOIN imports AS i ON i.job = j.id
LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
WHERE j.id BETWEEN :first AND :last
ORDER BY j.id;

-- legacy_page: the row ids after a given one, for reading the whole registry page by page.
SELECT id FROM jobs WHERE id > :after ORDER BY id LIMIT :limit;

-- legacy_count_jobs: the number of jobs.
SELECT count(*) FROM jobs;

-- legacy_set_status: sets the status for an old script, without an event.
UPDATE jobs
SET status = :status, updated_ms = :now, finished_ms = :finished_ms, terminal_seq = :terminal_seq,
    started_ms = COALESCE(started_ms, :started_ms), lease_until_ms = NULL,
    worker = CASE WHEN :status = 'pending' THEN NULL ELSE worker END
WHERE id = :job;

-- legacy_next_seq: allocates the next seq for an event that an old agent sends itself.
UPDATE jobs SET last_seq = last_seq + 1, updated_ms = :now WHERE job_id = :job_id RETURNING last_seq;

-- legacy_tombstones: finds out whether the id of any pruned job is stored.
SELECT 1 FROM tombstones LIMIT 1;
