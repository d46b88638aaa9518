-- Statements of the import from the old registry and of the export to it, for SQLite and PostgreSQL alike.

-- any_job: whether the database holds a job at all.
SELECT id FROM jobs LIMIT 1;

-- legacy_insert_job: a job as its record says.
INSERT INTO jobs (job_id, status, agent, agent_session, topic_prefix, timeout_sec, idle_timeout_sec, has_broker, kid,
                  last_seq, terminal_seq, created_ms, updated_ms, started_ms, finished_ms, last_event, last_event_ms,
                  detail)
VALUES (:job_id, :status, :agent, :agent_session, :topic_prefix, :timeout_sec, :idle_timeout_sec, :has_broker, :kid,
        :last_seq, :terminal_seq, :created_ms, :updated_ms, :started_ms, :finished_ms, :last_event, :last_event_ms,
        :detail)
RETURNING id;

-- legacy_update_job: the same for a job that is there and has not moved on.
UPDATE jobs
SET status = :status, agent = :agent, agent_session = :agent_session, topic_prefix = :topic_prefix,
    timeout_sec = :timeout_sec, idle_timeout_sec = :idle_timeout_sec, has_broker = :has_broker, kid = :kid,
    last_seq = :last_seq, terminal_seq = :terminal_seq, created_ms = :created_ms, updated_ms = :updated_ms,
    started_ms = COALESCE(started_ms, :started_ms), finished_ms = :finished_ms, last_event = :last_event,
    last_event_ms = :last_event_ms, detail = :detail, lease_until_ms = NULL
WHERE id = :job;

-- legacy_insert_spec: the part of the job that does not change.
INSERT INTO specs (job, prompt, broker, broker_password, expected_artifacts, extra)
VALUES (:job, :prompt, :broker, :broker_password, :expected_artifacts, :extra);

-- legacy_update_spec: the same for a job that is there.
UPDATE specs
SET prompt = :prompt, broker = :broker, broker_password = :broker_password,
    expected_artifacts = :expected_artifacts, extra = :extra
WHERE job = :job;

-- legacy_put_token: the record's token, as version 1.
INSERT INTO tokens (job, kid, sealed, imported, created_ms) VALUES (:job, 1, :sealed, 1, :created_ms)
ON CONFLICT (job, kid) DO UPDATE SET sealed = excluded.sealed, imported = 1, expires_ms = NULL, revoked_ms = NULL;

-- legacy_delete_tokens: the record has none any more.
DELETE FROM tokens WHERE job = :job;

-- legacy_put_import: what the job looked like in the old registry.
INSERT INTO imports (job, updated_ms, record_seq, job_seq, absent, event_form, event_digest, audit_form,
                     audit_digest)
VALUES (:job, :updated_ms, :record_seq, :job_seq, :absent, :event_form, :event_digest, :audit_form, :audit_digest)
ON CONFLICT (job) DO UPDATE
SET updated_ms = excluded.updated_ms, record_seq = excluded.record_seq, job_seq = excluded.job_seq,
    absent = excluded.absent, event_form = excluded.event_form, event_digest = excluded.event_digest,
    audit_form = excluded.audit_form, audit_digest = excluded.audit_digest;

-- legacy_delete_lines: the kept lines are written anew.
DELETE FROM import_lines WHERE job = :job;

-- legacy_insert_line: a line that is no event.
INSERT INTO import_lines (job, log, number, sealed, raw) VALUES (:job, :log, :number, :sealed, :raw);

-- legacy_insert_event: an event out of a log.
INSERT INTO events (job, seq, event, attempt, recorded_ms, digest, payload)
VALUES (:job, :seq, :event, :attempt, :recorded_ms, :digest, :payload);

-- legacy_digests: what events of a job are here already.
SELECT seq, digest FROM events WHERE job = :job ORDER BY seq;

-- legacy_payloads: the lines of a job's events.
SELECT seq, payload FROM events WHERE job = :job ORDER BY seq;

-- legacy_lines: the kept lines of one log.
SELECT number, sealed, raw FROM import_lines WHERE job = :job AND log = :log ORDER BY number;

-- legacy_job: one job with all that a record needs.
SELECT j.id, j.job_id, j.status, j.created_ms, j.updated_ms, s.prompt, j.agent, j.agent_session, s.broker,
       s.broker_password, j.topic_prefix, j.timeout_sec, j.idle_timeout_sec, s.expected_artifacts, j.last_seq, j.kid,
       t.sealed, t.revoked_ms, s.extra, i.updated_ms, i.record_seq, i.job_seq, i.absent, i.event_form,
       i.event_digest, i.audit_form, i.audit_digest, j.attempt, j.worker, j.lease_until_ms
FROM jobs AS j
JOIN specs AS s ON s.job = j.id
LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
LEFT JOIN imports AS i ON i.job = j.id
WHERE j.job_id = :job_id;

-- legacy_jobs: the same for a range of jobs, in order.
SELECT j.id, j.job_id, j.status, j.created_ms, j.updated_ms, s.prompt, j.agent, j.agent_session, s.broker,
       s.broker_password, j.topic_prefix, j.timeout_sec, j.idle_timeout_sec, s.expected_artifacts, j.last_seq, j.kid,
       t.sealed, t.revoked_ms, s.extra, i.updated_ms, i.record_seq, i.job_seq, i.absent, i.event_form,
       i.event_digest, i.audit_form, i.audit_digest, j.attempt, j.worker, j.lease_until_ms
FROM jobs AS j
JOIN specs AS s ON s.job = j.id
LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
LEFT JOIN imports AS i ON i.job = j.id
WHERE j.id BETWEEN :first AND :last
ORDER BY j.id;

-- legacy_page: the numbers of the jobs after one, for reading the whole registry page by page.
SELECT id FROM jobs WHERE id > :after ORDER BY id LIMIT :limit;

-- count_jobs: how many jobs there are.
SELECT count(*) FROM jobs;

-- count_job_events: how many events of a job there are.
SELECT count(*) FROM events WHERE job = :job;
