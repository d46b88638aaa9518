-- Statements for subscribers that read the database: the events of one job, or a feed of all jobs.

-- follow_events: recorded events in order, except those in a range that the subscriber skipped.
SELECT CAST(:job_id AS TEXT), e.seq, e.event, e.attempt, e.recorded_ms, e.payload
FROM events AS e
WHERE e.job = (SELECT id FROM jobs WHERE job_id = :job_id) AND e.seq > :after
  AND e.seq > COALESCE((SELECT g.last_seq FROM gaps AS g
                        WHERE g.subscription = :subscription AND g.first_seq <= e.seq
                        ORDER BY g.first_seq DESC LIMIT 1), 0)
ORDER BY e.seq LIMIT :limit;

-- follow_seqs: only the seqs of these events.
SELECT CAST(:job_id AS TEXT), e.seq
FROM events AS e
WHERE e.job = (SELECT id FROM jobs WHERE job_id = :job_id) AND e.seq > :after
  AND e.seq > COALESCE((SELECT g.last_seq FROM gaps AS g
                        WHERE g.subscription = :subscription AND g.first_seq <= e.seq
                        ORDER BY g.first_seq DESC LIMIT 1), 0)
ORDER BY e.seq LIMIT :limit;

-- subscription_state: a job's status and last seqs, and a subscriber's numbers for it.
SELECT j.id, j.status, j.last_seq, j.terminal_seq, s.id, s.start_seq, s.last_seq, s.handled_seq
FROM jobs AS j LEFT JOIN subscriptions AS s ON s.job = j.id AND s.subscriber = :subscriber
WHERE j.job_id = :job_id;

-- mark_handled: record that a seq was handled, unless an earlier one was accepted since it was delivered.
UPDATE subscriptions SET handled_seq = :seq
WHERE subscriber = :subscriber AND handled_seq < :seq AND last_seq >= :seq
  AND (CAST(:after AS BIGINT) IS NULL
       OR handled_seq >= :after
          AND NOT EXISTS (SELECT 1 FROM events AS e
                          WHERE e.job = subscriptions.job AND e.seq > :after AND e.seq < :seq
                            AND e.seq > COALESCE((SELECT g.last_seq FROM gaps AS g
                                                  WHERE g.subscription = subscriptions.id AND g.first_seq <= e.seq
                                                  ORDER BY g.first_seq DESC LIMIT 1), 0)))
  AND job = (SELECT id FROM jobs WHERE job_id = :job_id);

-- list_subscriptions: the numbers of each subscriber and job.
SELECT s.subscriber, j.job_id, j.status, s.start_seq, s.last_seq, s.handled_seq, j.last_seq, s.last_event_ms
FROM subscriptions AS s JOIN jobs AS j ON j.id = s.job
WHERE (CAST(:job_id AS TEXT) IS NULL OR j.job_id = :job_id)
  AND (CAST(:subscriber AS TEXT) IS NULL OR s.subscriber = :subscriber)
ORDER BY s.id LIMIT :limit;

-- get_feed: how far a subscriber of all jobs has come.
SELECT start_event, event FROM feeds WHERE subscriber = :subscriber;

-- insert_feed: begin the feed of a subscriber of all jobs.
INSERT INTO feeds (subscriber, start_event, event) VALUES (:subscriber, :start_event, :start_event)
ON CONFLICT (subscriber) DO NOTHING;

-- advance_feed: record how far a subscriber of all jobs has come.
UPDATE feeds SET event = :event WHERE subscriber = :subscriber AND event < :event;

-- newest_event: the id of the last event.
SELECT COALESCE(max(id), 0) FROM events;

-- feed_page: the jobs of the events after an id, in order, as far as that order is final.
SELECT e.id, j.job_id, e.recorded_ms FROM events AS e JOIN jobs AS j ON j.id = e.job
WHERE e.id > :after AND e.id <= :stable_event_id ORDER BY e.id LIMIT :limit;

-- unhandled_jobs: jobs with events that a subscriber has accepted but not handled.
SELECT j.job_id FROM subscriptions AS s JOIN jobs AS j ON j.id = s.job
WHERE s.subscriber = :subscriber AND s.handled_seq < s.last_seq ORDER BY j.id LIMIT :limit;

-- seq_at_event: a job's highest seq among the events up to an id.
SELECT COALESCE(max(e.seq), 0) FROM events AS e WHERE e.job = :job AND e.id <= :event;
