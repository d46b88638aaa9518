-- What agents ask and people answer. A question is recorded in the transaction of its permission_required event.

CREATE TABLE questions (
    id           INTEGER PRIMARY KEY,
    job          INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    key          TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 128),   -- the same key is the same question
    attempt      INTEGER NOT NULL CHECK (attempt >= 0),                    -- the last attempt that asked it
    text         TEXT    NOT NULL CHECK (length(text) BETWEEN 1 AND 65536),
    choices      TEXT    NOT NULL DEFAULT '[]',                            -- JSON; empty: any text is an answer
    seq          INTEGER NOT NULL,                                         -- of the event that asked it last
    asked_ms     INTEGER NOT NULL,
    answer       TEXT    CHECK (length(answer) BETWEEN 1 AND 65536),       -- NULL: open
    message      TEXT,
    answered_by  TEXT    CHECK (length(answered_by) BETWEEN 1 AND 256),
    answered_ms  INTEGER,
    acknowledged INTEGER,                                                  -- seq of the event that acknowledged it
    UNIQUE (job, key),
    CHECK ((answer IS NULL) = (answered_by IS NULL) AND (answer IS NULL) = (answered_ms IS NULL))
) STRICT;

CREATE INDEX questions_open ON questions (id) WHERE answer IS NULL;
CREATE INDEX questions_of_job ON questions (job, id);

CREATE VIEW v_questions AS
SELECT j.job_id, q.key, q.attempt, j.agent, j.status AS job_status, q.text, q.choices, q.answer, q.message,
       q.answered_by,
       strftime('%Y-%m-%dT%H:%M:%SZ', q.asked_ms / 1000, 'unixepoch') AS asked_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', q.answered_ms / 1000, 'unixepoch') AS answered_at,
       q.seq,
       q.answer IS NULL AND j.status IN ('pending', 'running') AND q.attempt = j.attempt AS is_open
FROM questions AS q JOIN jobs AS j ON j.id = q.job;
