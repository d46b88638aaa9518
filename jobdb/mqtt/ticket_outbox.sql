-- Statements about what was published with tickets, and what the broker has not acknowledged yet.

-- get_ticket: a ticket's next seq and its end.
SELECT id, next_seq, terminal_seq FROM tickets WHERE name = :name;

-- insert_ticket: a ticket is used for the first time on this host.
INSERT INTO tickets (name, job_id, topic, attempt, next_seq, used_ms)
VALUES (:name, :job_id, :topic, :attempt, :next_seq, :now)
RETURNING id;

-- advance_ticket: a seq was allocated.
UPDATE tickets SET next_seq = :next_seq, terminal_seq = :terminal_seq, used_ms = :now WHERE id = :ticket;

-- insert_ticket_event: an event to be delivered.
INSERT INTO ticket_events (ticket, seq, terminal, recorded_ms, payload)
VALUES (:ticket, :seq, :terminal, :now, :payload);

-- undelivered_ticket_events: in order.
SELECT e.id, e.seq, e.terminal, e.payload
FROM ticket_events AS e
WHERE e.ticket = :ticket AND e.delivered_ms IS NULL AND e.id > :after
ORDER BY e.id LIMIT :limit;

-- mark_ticket_event_delivered: the broker has acknowledged it.
UPDATE ticket_events SET delivered_ms = :now WHERE id = :id;

-- count_undelivered_ticket_events: the number of undelivered events.
SELECT count(*) FROM ticket_events WHERE ticket = :ticket AND delivered_ms IS NULL;

-- resend_ticket: the broker has lost them: every event is undelivered again.
UPDATE ticket_events SET delivered_ms = NULL WHERE ticket = :ticket;

-- delete_expired_tickets: tickets that were last used long ago and have nothing to deliver.
DELETE FROM tickets
WHERE used_ms < :before
  AND NOT EXISTS (SELECT 1 FROM ticket_events AS e WHERE e.ticket = tickets.id AND e.delivered_ms IS NULL);

-- acquire_lease: acquires or renews the lease. One that ends a minute after ours was acquired while a clock was ahead.
INSERT INTO leases (name, holder, until_ms) VALUES (:name, :holder, :until_ms)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
WHERE leases.holder = excluded.holder OR leases.until_ms <= :now OR leases.until_ms > excluded.until_ms + 60000;

-- release_lease: releases it.
DELETE FROM leases WHERE name = :name AND holder = :holder;
