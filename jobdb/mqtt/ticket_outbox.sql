-- Statements for events that were published with tickets, and for those that the broker has not acknowledged yet.

-- get_ticket: a ticket's next seq and its terminal seq.
SELECT id, next_seq, terminal_seq FROM tickets WHERE name = :name;

-- insert_ticket: records the first use of a ticket on this host.
INSERT INTO tickets (name, job_id, topic, attempt, next_seq, used_ms)
VALUES (:name, :job_id, :topic, :attempt, :next_seq, :now)
RETURNING id;

-- advance_ticket: records that a seq was allocated.
UPDATE tickets SET next_seq = :next_seq, terminal_seq = :terminal_seq, used_ms = :now WHERE id = :ticket;

-- insert_ticket_event: adds an event to deliver.
INSERT INTO ticket_events (ticket, seq, terminal, recorded_ms, payload)
VALUES (:ticket, :seq, :terminal, :now, :payload);

-- undelivered_ticket_events: the undelivered events, in order.
SELECT e.id, e.seq, e.terminal, e.payload
FROM ticket_events AS e
WHERE e.ticket = :ticket AND e.delivered_ms IS NULL AND e.id > :after
ORDER BY e.id LIMIT :limit;

-- mark_ticket_event_delivered: records that the broker has acknowledged an event.
UPDATE ticket_events SET delivered_ms = :now WHERE id = :id;

-- count_undelivered_ticket_events: the number of undelivered events.
SELECT count(*) FROM ticket_events WHERE ticket = :ticket AND delivered_ms IS NULL;

-- resend_ticket: marks every event as undelivered again, because the broker has lost them.
UPDATE ticket_events SET delivered_ms = NULL WHERE ticket = :ticket;

-- delete_expired_tickets: deletes tickets that were last used long ago and have nothing to deliver.
DELETE FROM tickets
WHERE used_ms < :before
  AND NOT EXISTS (SELECT 1 FROM ticket_events AS e WHERE e.ticket = tickets.id AND e.delivered_ms IS NULL);

-- acquire_lease: acquires or renews the lease. A lease that ends a minute after ours was acquired with a clock ahead.
INSERT INTO leases (name, holder, until_ms) VALUES (:name, :holder, :until_ms)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
WHERE leases.holder = excluded.holder OR leases.until_ms <= :now OR leases.until_ms > excluded.until_ms + 60000;

-- release_lease: releases the lease.
DELETE FROM leases WHERE name = :name AND holder = :holder;
