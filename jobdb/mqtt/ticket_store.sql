-- The tables of the worker's small database, one for all tickets of a user. It contains no secrets.

-- schema_version: 0 in a new file.
PRAGMA user_version;

-- any_table: finds any object in the file.
SELECT 1 FROM sqlite_schema LIMIT 1;

-- create_tickets: the tickets, each identified by a digest. Times are Unix milliseconds.
CREATE TABLE tickets (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    job_id       TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    attempt      INTEGER NOT NULL,
    next_seq     INTEGER NOT NULL,
    terminal_seq INTEGER,
    used_ms      INTEGER NOT NULL
) STRICT;

-- create_ticket_events: the published events, in order of id; delivered_ms is set once the broker has acknowledged one.
CREATE TABLE ticket_events (
    id           INTEGER PRIMARY KEY,
    ticket       INTEGER NOT NULL REFERENCES tickets (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    terminal     INTEGER NOT NULL,
    recorded_ms  INTEGER NOT NULL,
    delivered_ms INTEGER,
    payload      TEXT    NOT NULL,
    UNIQUE (ticket, seq)
) STRICT;

-- create_waiting_index: the index that finds undelivered events without reading the delivered ones.
CREATE INDEX ticket_events_waiting ON ticket_events (ticket, id) WHERE delivered_ms IS NULL;

-- create_leases: the leases of the processes that deliver a ticket's events.
CREATE TABLE leases (
    name     TEXT PRIMARY KEY,
    holder   TEXT    NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- set_application_id: distinguishes the file from other databases ("jobt").
PRAGMA application_id = 1785684596;

-- set_schema_version: records that the tables above were created.
PRAGMA user_version = 1;
