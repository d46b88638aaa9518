-- What running the jobs needs: readiness, tries, the attempts of workers that run processes, and those workers.

-- The number of tries after which a job that keeps failing ends as error; NULL: a failure is final.
ALTER TABLE jobs ADD COLUMN max_attempts INTEGER CHECK (max_attempts >= 1);

-- A pending job is ready when this is NULL. Otherwise a claim makes it ready once the time has come.
ALTER TABLE jobs ADD COLUMN not_before_ms INTEGER;

-- How long the delay was meant to last: an end later than now plus this was computed while a clock was ahead.
ALTER TABLE jobs ADD COLUMN delay_ms INTEGER;

DROP INDEX jobs_pending;

DROP INDEX jobs_pending_by_agent;

DROP INDEX jobs_pending_by_session;

CREATE INDEX jobs_ready ON jobs (priority DESC, id) WHERE status = 'pending' AND not_before_ms IS NULL;

CREATE INDEX jobs_ready_by_agent ON jobs (agent, priority DESC, id) WHERE status = 'pending' AND not_before_ms IS NULL;

CREATE INDEX jobs_ready_by_session ON jobs (agent_session, priority DESC, id)
    WHERE status = 'pending' AND not_before_ms IS NULL AND agent_session IS NOT NULL;

CREATE INDEX jobs_delayed ON jobs (not_before_ms, delay_ms) WHERE status = 'pending' AND not_before_ms IS NOT NULL;

-- The processes that claim and run jobs, with a heartbeat each.
CREATE TABLE workers (
    worker_id     TEXT    PRIMARY KEY CHECK (length(worker_id) BETWEEN 1 AND 64),
    name          TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 256),
    agent         TEXT    CHECK (length(agent) <= 128),
    host          TEXT    NOT NULL CHECK (length(host) <= 256),
    machine       TEXT    NOT NULL CHECK (length(machine) <= 64),      -- digest of the machine's id
    boot_id       TEXT    NOT NULL CHECK (length(boot_id) <= 64),
    pid_namespace TEXT    NOT NULL CHECK (length(pid_namespace) <= 64),
    pid           INTEGER NOT NULL,
    pid_started   INTEGER NOT NULL,                                    -- in clock ticks since the boot
    slots         INTEGER NOT NULL CHECK (slots >= 1),
    log_dir       TEXT,
    lease_ms      INTEGER NOT NULL,
    started_ms    INTEGER NOT NULL,
    heartbeat_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which worker made an attempt, and where its log is.
CREATE TABLE attempts (
    job        INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    attempt    INTEGER NOT NULL CHECK (attempt >= 1),
    worker     TEXT    NOT NULL CHECK (length(worker) <= 256),
    worker_id  TEXT    NOT NULL CHECK (length(worker_id) <= 64),
    host       TEXT    NOT NULL CHECK (length(host) <= 256),
    log        TEXT,                                                   -- a path on that host
    started_ms INTEGER NOT NULL,
    PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;

DROP VIEW job_records;

CREATE VIEW job_records AS
SELECT j.job_id, j.status, j.agent, j.agent_session, s.prompt, j.priority, j.topic_prefix, s.broker,
       s.broker_password IS NOT NULL AS has_broker_password, j.timeout_sec, j.idle_timeout_sec,
       s.expected_artifacts, j.last_seq, j.attempt, j.strikes, j.worker, j.lease_until_ms, j.created_ms,
       j.updated_ms, j.started_ms, j.finished_ms, j.last_event, j.last_event_ms, j.detail, j.kid, s.extra, j.id,
       j.max_attempts, j.not_before_ms
FROM jobs AS j
JOIN specs AS s ON s.job = j.id;

DROP VIEW v_jobs;

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
       CASE WHEN j.kid > 0 THEN 'required' ELSE 'never' END AS auth,
       j.max_attempts,
       strftime('%Y-%m-%dT%H:%M:%SZ', j.not_before_ms / 1000, 'unixepoch') AS not_before
FROM jobs AS j JOIN specs AS s ON s.job = j.id;

CREATE VIEW v_workers AS
SELECT w.worker_id, w.name, w.agent, w.host, w.pid, w.slots, w.log_dir,
       strftime('%Y-%m-%dT%H:%M:%SZ', w.started_ms / 1000, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', w.heartbeat_ms / 1000, 'unixepoch') AS heartbeat_at,
       (SELECT count(*) FROM jobs AS j JOIN attempts AS a ON a.job = j.id AND a.attempt = j.attempt
        WHERE j.status = 'running' AND j.lease_until_ms IS NOT NULL AND a.worker_id = w.worker_id) AS running
FROM workers AS w;

CREATE VIEW v_attempts AS
SELECT j.job_id, a.attempt, a.worker, a.worker_id, a.host, a.log,
       strftime('%Y-%m-%dT%H:%M:%SZ', a.started_ms / 1000, 'unixepoch') AS started_at
FROM attempts AS a JOIN jobs AS j ON j.id = a.job;
