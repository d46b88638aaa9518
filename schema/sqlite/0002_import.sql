-- What an import from the old registry keeps beside its jobs, so that it can be repeated and undone by an export.

CREATE TABLE imports (
    job          INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    updated_ms   INTEGER NOT NULL,               -- the record's; a job whose own differs has changed here since
    record_seq   INTEGER NOT NULL,               -- last_seq as the record had it,
    job_seq      INTEGER NOT NULL,               -- and as the job got it: its log may have been ahead
    absent       TEXT    NOT NULL DEFAULT '',    -- optional fields that the record does not have
    event_form   TEXT,                           -- how the event log was laid out; null: there is none
    event_digest BLOB,                           -- SHA-256 of the event log
    audit_form   TEXT,
    audit_digest BLOB
) STRICT;

-- Lines of the logs that are no events, and the audit log's two small files: kept as they are.
CREATE TABLE import_lines (
    job    INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    log    TEXT    NOT NULL CHECK (log IN ('event_log', 'audit_log', 'audit_meta', 'audit_status')),
    number INTEGER NOT NULL,
    raw    BLOB    NOT NULL,                     -- secrets that stood there in clear replaced by marks
    PRIMARY KEY (job, log, number)
) STRICT, WITHOUT ROWID;
