-- What an import from the old registry keeps beside its jobs, so that it can be repeated and undone by an export.

CREATE TABLE imports (
    job          bigint PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    updated_ms   bigint NOT NULL,               -- the record's; a job whose own differs has changed here since
    record_seq   bigint NOT NULL,               -- last_seq as the record had it,
    job_seq      bigint NOT NULL,               -- and as the job got it: its log may have been ahead
    absent       text   NOT NULL DEFAULT '',    -- optional fields that the record does not have
    event_form   text,                          -- how the event log was laid out; null: there is none
    event_digest bytea,                         -- SHA-256 of the event log
    audit_form   text,
    audit_digest bytea
);

-- Lines of the logs that are no events, and the audit log's two small files: kept as they are.
CREATE TABLE import_lines (
    job    bigint  NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    log    text    NOT NULL CHECK (log IN ('event_log', 'audit_log', 'audit_meta', 'audit_status')),
    number bigint  NOT NULL,
    raw    bytea   NOT NULL,                    -- secrets that stood there in clear replaced by marks
    PRIMARY KEY (job, log, number)
);
