-- The registry: jobs, their events, tokens, subscribers, the outbox and the record of refusals.
-- Times are Unix milliseconds. `job` is always jobs.id; the public name is jobs.job_id.

-- What changes with every event is here and small; what does not is in specs, so that publishing
-- an event never rewrites a long prompt.
CREATE TABLE jobs (
    id               INTEGER PRIMARY KEY,
    job_id           TEXT    NOT NULL UNIQUE CHECK (length(job_id) BETWEEN 1 AND 128),
    status           TEXT    NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'error', 'cancelled')),
    agent            TEXT    NOT NULL CHECK (length(agent) <= 128),
    agent_session    TEXT    CHECK (length(agent_session) <= 256),
    priority         INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1000000 AND 1000000),
    topic_prefix     TEXT    NOT NULL CHECK (length(topic_prefix) <= 1024),
    timeout_sec      INTEGER NOT NULL CHECK (timeout_sec >= 0),
    idle_timeout_sec INTEGER NOT NULL CHECK (idle_timeout_sec >= 0),
    has_broker       INTEGER NOT NULL DEFAULT 0 CHECK (has_broker IN (0, 1)),
    kid              INTEGER NOT NULL DEFAULT 0 CHECK (kid >= 0),           -- the present token; 0: none
    last_seq         INTEGER NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    terminal_seq     INTEGER,                                              -- last_seq when the job ended
    attempt          INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    strikes          INTEGER NOT NULL DEFAULT 0 CHECK (strikes >= 0),        -- leases that ran out
    worker           TEXT    CHECK (length(worker) <= 256),
    lease_until_ms   INTEGER,
    created_ms       INTEGER NOT NULL,
    updated_ms       INTEGER NOT NULL,
    started_ms       INTEGER,
    finished_ms      INTEGER,
    last_event       TEXT    CHECK (last_event IN ('started', 'progress', 'permission_required', 'completed', 'error')),
    last_event_ms    INTEGER,
    detail           TEXT,                                                 -- the last event's detail, or why it ended
    idempotency_key  TEXT    CHECK (length(idempotency_key) <= 256),
    CHECK ((status IN ('completed', 'error', 'cancelled')) = (finished_ms IS NOT NULL)),
    CHECK (status = 'running' OR lease_until_ms IS NULL)
) STRICT;

CREATE INDEX jobs_by_status ON jobs (status, id);
CREATE INDEX jobs_by_agent ON jobs (agent, status, id);
CREATE INDEX jobs_pending ON jobs (priority DESC, id) WHERE status = 'pending';
CREATE INDEX jobs_pending_by_agent ON jobs (agent, priority DESC, id) WHERE status = 'pending';
CREATE INDEX jobs_pending_by_session ON jobs (agent_session, priority DESC, id)
    WHERE status = 'pending' AND agent_session IS NOT NULL;
CREATE INDEX jobs_leased ON jobs (lease_until_ms) WHERE status = 'running' AND lease_until_ms IS NOT NULL;
CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE finished_ms IS NOT NULL;
CREATE UNIQUE INDEX jobs_by_idempotency_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE specs (
    job                INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    prompt             TEXT NOT NULL CHECK (length(prompt) <= 4194304),
    broker             TEXT,                          -- JSON, without the password
    broker_password    BLOB,                          -- sealed
    expected_artifacts TEXT NOT NULL DEFAULT '[]',    -- JSON
    extra              TEXT NOT NULL DEFAULT '{}'     -- JSON: fields that are not ours, kept
) STRICT;

CREATE TABLE tokens (
    job        INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    kid        INTEGER NOT NULL CHECK (kid >= 1),
    sealed     BLOB    NOT NULL,
    imported   INTEGER NOT NULL DEFAULT 0 CHECK (imported IN (0, 1)),      -- the old signing form verifies too
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,                                                    -- end of the overlap after a rotation
    revoked_ms INTEGER,
    PRIMARY KEY (job, kid)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,     -- never given out twice: feeds remember how far they looked
    job         INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL CHECK (seq BETWEEN 1 AND 9007199254740991),
    event       TEXT    NOT NULL CHECK (event IN ('started', 'progress', 'permission_required', 'completed', 'error')),
    attempt     INTEGER,
    recorded_ms INTEGER NOT NULL,
    digest      BLOB    NOT NULL CHECK (length(digest) = 32),
    payload     TEXT    NOT NULL CHECK (length(payload) <= 262144),        -- the wire form as sent
    UNIQUE (job, seq)
) STRICT;

-- Events recorded and not yet acknowledged by the broker.
CREATE TABLE outbox (
    event INTEGER PRIMARY KEY REFERENCES events (id) ON DELETE CASCADE,
    job   INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE
) STRICT;

CREATE INDEX outbox_by_job ON outbox (job, event);

-- One named observer of one job. An event of seq s was accepted by it when
-- start_seq < s <= last_seq and no gap holds s.
CREATE TABLE subscriptions (
    id            INTEGER PRIMARY KEY,
    job           INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    subscriber    TEXT    NOT NULL CHECK (length(subscriber) BETWEEN 1 AND 256),
    start_seq     INTEGER NOT NULL CHECK (start_seq >= 0),
    last_seq      INTEGER NOT NULL CHECK (last_seq >= start_seq),
    handled_seq   INTEGER NOT NULL CHECK (handled_seq <= last_seq),
    created_ms    INTEGER NOT NULL,
    last_event_ms INTEGER,
    UNIQUE (job, subscriber)
) STRICT;

CREATE INDEX subscriptions_by_subscriber ON subscriptions (subscriber, job);

-- The seqs that a subscriber skipped over: ranges, both ends included.
CREATE TABLE gaps (
    subscription INTEGER NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    first_seq    INTEGER NOT NULL,
    last_seq     INTEGER NOT NULL CHECK (last_seq >= first_seq),
    PRIMARY KEY (subscription, first_seq)
) STRICT, WITHOUT ROWID;

-- How far a subscriber of all jobs has looked for news. The truth is in subscriptions; this only saves looking again.
CREATE TABLE feeds (
    subscriber  TEXT PRIMARY KEY CHECK (length(subscriber) BETWEEN 1 AND 256),
    start_event INTEGER NOT NULL,
    event       INTEGER NOT NULL
) STRICT;

-- How often each verdict was given. job 0 stands for payloads that name no job of this database.
CREATE TABLE verdict_counts (
    job     INTEGER NOT NULL,
    verdict TEXT    NOT NULL CHECK (length(verdict) <= 32),
    count   INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (job, verdict)
) STRICT, WITHOUT ROWID;

-- Authentic events that were refused; bounded for each job and in all.
CREATE TABLE refusals (
    id          INTEGER PRIMARY KEY,
    job         INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    subscriber  TEXT    NOT NULL,
    verdict     TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    recorded_ms INTEGER NOT NULL,
    digest      BLOB    NOT NULL,
    reason      TEXT    NOT NULL,
    payload     TEXT    NOT NULL CHECK (length(payload) <= 4096),          -- its beginning
    UNIQUE (job, subscriber, verdict, digest)
) STRICT;

CREATE INDEX refusals_by_job ON refusals (job, id);

-- Named leases for work that one process does at a time, whatever host it is on (a relay).
CREATE TABLE leases (
    name     TEXT PRIMARY KEY CHECK (length(name) <= 256),
    holder   TEXT    NOT NULL CHECK (length(holder) <= 256),
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Facts about this database: shared (may lie on a network folder), unsafe_override, ….
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The job as the library reads it. One place for the columns and their order.
CREATE VIEW job_records AS
SELECT j.job_id, j.status, j.agent, j.agent_session, s.prompt, j.priority, j.topic_prefix, s.broker,
       s.broker_password IS NOT NULL AS has_broker_password, j.timeout_sec, j.idle_timeout_sec,
       s.expected_artifacts, j.last_seq, j.attempt, j.strikes, j.worker, j.lease_until_ms, j.created_ms,
       j.updated_ms, j.started_ms, j.finished_ms, j.last_event, j.last_event_ms, j.detail, j.kid, s.extra, j.id
FROM jobs AS j
JOIN specs AS s ON s.job = j.id;
