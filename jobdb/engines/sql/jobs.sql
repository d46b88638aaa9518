-- Statements for jobs. Those that differ on PostgreSQL have the same name in postgresql/dialect.sql.

-- insert_job: insert a job; no row if the id is taken.
INSERT INTO jobs (job_id, status, agent, agent_session, priority, topic_prefix, timeout_sec, idle_timeout_sec,
                  has_broker, kid, created_ms, updated_ms, idempotency_key, max_attempts)
VALUES (:job_id, 'pending', :agent, :agent_session, :priority, :topic_prefix, :timeout_sec, :idle_timeout_sec,
        :has_broker, :kid, :now, :now, :idempotency_key, :max_attempts)
ON CONFLICT (job_id) DO NOTHING
RETURNING id;

-- insert_spec: insert the immutable part of a job.
INSERT INTO specs (job, prompt, broker, broker_password, expected_artifacts, extra)
VALUES (:job, :prompt, :broker, :broker_password, :expected_artifacts, :extra);

-- insert_token: insert a version of a job's token.
INSERT INTO tokens (job, kid, sealed, imported, created_ms, remembered)
VALUES (:job, :kid, :sealed, :imported, :now, 1);

-- job_by_idempotency_key: the job that was registered with an idempotency key.
SELECT job_id FROM jobs WHERE idempotency_key = :idempotency_key;

-- get_job: one job's record.
SELECT * FROM job_records WHERE job_id = :job_id;

-- get_job_by_number: one job's record, by its primary key.
SELECT * FROM job_records WHERE id = :job;

-- get_jobs_by_number: the records of several jobs, the first to be claimed first; the primary keys are a JSON array.
SELECT * FROM job_records WHERE id IN (SELECT value FROM json_each(:jobs)) ORDER BY priority DESC, id;

-- job_number: the primary key of a job.
SELECT id FROM jobs WHERE job_id = :job_id;

-- list_jobs: a page of jobs, newest first, below a job.
SELECT * FROM job_records
WHERE id < :below
  AND (CAST(:agent_session AS TEXT) IS NULL OR agent_session = :agent_session)
ORDER BY id DESC LIMIT :limit;

-- list_jobs_by_status: a page of the jobs of one status.
SELECT * FROM job_records
WHERE status = :status AND id < :below
  AND (CAST(:agent_session AS TEXT) IS NULL OR agent_session = :agent_session)
ORDER BY id DESC LIMIT :limit;

-- list_jobs_by_agent: a page of the jobs of one agent and status.
SELECT * FROM job_records
WHERE agent = :agent AND status = :status AND id < :below
  AND (CAST(:agent_session AS TEXT) IS NULL OR agent_session = :agent_session)
ORDER BY id DESC LIMIT :limit;

-- job_state: the state that a verb checks before it changes a job.
SELECT id, status, attempt, last_seq, worker, lease_until_ms, strikes, max_attempts, not_before_ms
FROM jobs WHERE job_id = :job_id;

-- job_states: the status and attempt of several jobs; the ids are a JSON array.
SELECT job_id, status, attempt FROM jobs WHERE job_id IN (SELECT value FROM json_each(:job_ids));

-- cancel_job: end a job that is not terminal.
UPDATE jobs
SET status = 'cancelled', finished_ms = :now, updated_ms = :now, terminal_seq = last_seq, lease_until_ms = NULL,
    not_before_ms = NULL, delay_ms = NULL, detail = :detail
WHERE id = :job AND status IN ('pending', 'running');

-- prune_candidates: terminal jobs that ended before a time and have nothing left to deliver.
SELECT id, job_id, kid,
       (SELECT t.kid FROM tokens AS t WHERE t.job = jobs.id AND t.remembered = 0 LIMIT 1) IS NOT NULL
FROM jobs
WHERE finished_ms < :before AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = jobs.id)
ORDER BY finished_ms LIMIT :limit;

-- delete_job: delete a job and everything that belongs to it.
DELETE FROM jobs WHERE id = :job;

-- delete_verdict_counts: delete the verdict counts of a job.
DELETE FROM verdict_counts WHERE job = :job;

-- count_by_status: the number of jobs per status.
SELECT status, count(*) FROM jobs GROUP BY status;

-- get_setting: a setting of this database.
SELECT value FROM settings WHERE name = :name;

-- insert_setting: store a setting of this database unless it exists.
INSERT INTO settings (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING;

-- put_setting: store a setting of this database, replacing an earlier value.
INSERT INTO settings (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;
