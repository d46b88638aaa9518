-- Statements for the outbox: the events that wait for the broker, and their destination.

-- outbox_page: the events that wait for the broker, oldest first.
SELECT o.event, j.job_id, e.seq, e.event, e.payload, j.topic_prefix
FROM outbox AS o
JOIN events AS e ON e.id = o.event
JOIN jobs AS j ON j.id = o.job
WHERE o.event > :after
ORDER BY o.event LIMIT :limit;

-- outbox_page_of_job: the events of one job that wait for the broker, oldest first.
SELECT o.event, j.job_id, e.seq, e.event, e.payload, j.topic_prefix
FROM outbox AS o
JOIN events AS e ON e.id = o.event
JOIN jobs AS j ON j.id = o.job
WHERE o.job = (SELECT id FROM jobs WHERE job_id = :job_id) AND o.event > :after
ORDER BY o.event LIMIT :limit;

-- mark_delivered: remove an event that the broker has acknowledged.
DELETE FROM outbox WHERE event = :event;

-- count_outbox: the number of waiting events, and the time of the oldest.
SELECT count(*), min(e.recorded_ms) FROM outbox AS o JOIN events AS e ON e.id = o.event;

-- broker_of_job: the broker of a job's events.
SELECT s.broker, s.broker_password FROM jobs AS j JOIN specs AS s ON s.job = j.id WHERE j.job_id = :job_id;
