-- Statements of a subscriber that receives events from a broker.

-- subscriber_cursor: a subscriber's position in a job; with nulls if it has not seen the job yet.
SELECT j.id, j.status, j.last_seq, s.start_seq, s.last_seq, s.handled_seq, j.topic_prefix
FROM jobs AS j LEFT JOIN subscriptions AS s ON s.job = j.id AND s.subscriber = :subscriber
WHERE j.job_id = :job_id;

-- recorded_between: finds out whether events with these seqs are recorded.
SELECT 1 FROM events WHERE job = :job AND seq > :after AND seq < :before LIMIT 1;

-- recorded_digest: the digest of the event that is recorded under a seq.
SELECT e.digest FROM jobs AS j JOIN events AS e ON e.job = j.id WHERE j.job_id = :job_id AND e.seq = :seq;

-- recorded_digests: the same for the seqs after one.
SELECT e.seq, e.digest FROM jobs AS j JOIN events AS e ON e.job = j.id
WHERE j.job_id = :job_id AND e.seq > :after ORDER BY e.seq LIMIT :limit;

-- accepted_unhandled: events that were accepted but are not yet handled, in order.
SELECT j.job_id, e.seq, e.event, e.attempt, e.recorded_ms, e.payload
FROM jobs AS j
JOIN subscriptions AS s ON s.job = j.id AND s.subscriber = :subscriber
JOIN events AS e ON e.job = j.id
WHERE j.job_id = :job_id AND e.seq > s.handled_seq AND e.seq > :after AND e.seq <= s.last_seq
  AND e.seq > COALESCE((SELECT g.last_seq FROM gaps AS g
                        WHERE g.subscription = s.id AND g.first_seq <= e.seq ORDER BY g.first_seq DESC LIMIT 1), 0)
ORDER BY e.seq LIMIT :limit;

-- recorded_after: the events after a given one, in the order in which they were recorded.
SELECT e.id, j.job_id, e.seq, e.recorded_ms
FROM events AS e JOIN jobs AS j ON j.id = e.job
WHERE e.id > :after AND e.id <= :stable
ORDER BY e.id LIMIT :limit;

-- overdue_event: the newest of a job's events that were recorded before a given time, or while a clock was ahead.
SELECT max(seq) FROM events WHERE job = :job AND seq > :after AND (recorded_ms < :before OR recorded_ms > :latest);

-- cancelled_since: jobs that were cancelled; a cancellation has no event.
SELECT job_id, finished_ms FROM jobs
WHERE finished_ms > :since AND finished_ms <= :latest AND status = 'cancelled'
ORDER BY finished_ms LIMIT :limit;

-- live_topics: the topic prefixes of live jobs.
SELECT DISTINCT topic_prefix FROM jobs WHERE status IN ('pending', 'running');

-- brokers_of_live_jobs: the brokers of live jobs, each with one job that uses it.
SELECT s.broker, min(j.job_id), s.broker_password IS NOT NULL
FROM jobs AS j JOIN specs AS s ON s.job = j.id
WHERE j.status IN ('pending', 'running') AND s.broker IS NOT NULL
GROUP BY s.broker, s.broker_password IS NOT NULL;
