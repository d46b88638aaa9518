-- The worker's own small database: what it has published with tickets, and what the broker has not acknowledged yet.
-- One for all tickets of a user, shared by that user's processes on this host. It holds no secrets.

-- schema_version: 0 in a new file.
PRAGMA user_version;

-- any_table: whether there is anything in the file.
SELECT 1 FROM sqlite_schema LIMIT 1;

-- create_tickets: one ticket, named by a digest of what makes it unique. Times are Unix milliseconds.
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

-- create_ticket_events: what was published, in the order of id; delivered_ms is set when the broker has acknowledged it.
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

-- create_waiting_index: what waits is found without looking at what was delivered.
CREATE INDEX ticket_events_waiting ON ticket_events (ticket, id) WHERE delivered_ms IS NULL;

-- create_leases: who delivers a ticket's events now.
CREATE TABLE leases (
    name     TEXT PRIMARY KEY,
    holder   TEXT    NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- set_application: tells the file from other databases ("jobt").
PRAGMA application_id = 1785684596;

-- set_schema_version: the tables above are made.
PRAGMA user_version = 1;

-- get_ticket: a ticket's numbers.
SELECT id, next_seq, terminal_seq FROM tickets WHERE name = :name;

-- insert_ticket: a ticket is used for the first time here.
INSERT INTO tickets (name, job_id, topic, attempt, next_seq, used_ms)
VALUES (:name, :job_id, :topic, :attempt, :next_seq, :now)
RETURNING id;

-- advance_ticket: a number was given out.
UPDATE tickets SET next_seq = :next_seq, terminal_seq = :terminal_seq, used_ms = :now WHERE id = :ticket;

-- insert_ticket_event: what is to be delivered.
INSERT INTO ticket_events (ticket, seq, terminal, recorded_ms, payload)
VALUES (:ticket, :seq, :terminal, :now, :payload);

-- waiting_ticket_events: in order.
SELECT e.id, e.seq, e.terminal, e.payload
FROM ticket_events AS e
WHERE e.ticket = :ticket AND e.delivered_ms IS NULL AND e.id > :after
ORDER BY e.id LIMIT :limit;

-- mark_ticket_event: the broker has acknowledged it.
UPDATE ticket_events SET delivered_ms = :now WHERE id = :id;

-- count_waiting_ticket_events: how many wait.
SELECT count(*) FROM ticket_events WHERE ticket = :ticket AND delivered_ms IS NULL;

-- resend_ticket: the broker has lost them: everything waits again.
UPDATE ticket_events SET delivered_ms = NULL WHERE ticket = :ticket;

-- forget_old_tickets: tickets that were used last long ago and have nothing left to deliver.
DELETE FROM tickets
WHERE used_ms < :before
  AND NOT EXISTS (SELECT 1 FROM ticket_events AS e WHERE e.ticket = tickets.id AND e.delivered_ms IS NULL);

-- acquire_lease: takes or renews the right to deliver. One that ends a minute after ours was taken while a clock was ahead.
INSERT INTO leases (name, holder, until_ms) VALUES (:name, :holder, :until_ms)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
WHERE leases.holder = excluded.holder OR leases.until_ms <= :now OR leases.until_ms > excluded.until_ms + 60000;

-- release_lease: gives it back.
DELETE FROM leases WHERE name = :name AND holder = :holder;
