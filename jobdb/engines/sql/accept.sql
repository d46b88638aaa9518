-- Statements about accepting wire events, subscribers and refusals.

-- accept_state: everything that a verdict is decided from, in one row; first the columns of sender_credentials.
SELECT j.id, j.kid, j.topic_prefix, j.updated_ms, t.sealed, t.imported, t.revoked_ms, t.expires_ms, t.overlap_ms,
       t.ended_ms,
       j.status, j.last_seq, j.terminal_seq, j.attempt, s.id, s.start_seq, s.last_seq, e.digest, e.recorded_ms
FROM jobs AS j
LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = :kid
LEFT JOIN subscriptions AS s ON s.job = j.id AND s.subscriber = :subscriber
LEFT JOIN events AS e ON e.job = j.id AND e.seq = :seq
WHERE j.job_id = :job_id;

-- sender_credentials: who may speak for a job with a key, before the write lock is requested.
SELECT j.id, j.kid, j.topic_prefix, j.updated_ms, t.sealed, t.imported, t.revoked_ms, t.expires_ms, t.overlap_ms,
       t.ended_ms
FROM jobs AS j LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = :kid
WHERE j.job_id = :job_id;

-- stored_event: the same of a further event of the job.
SELECT digest, recorded_ms FROM events WHERE job = :job AND seq = :seq;

-- token_state: the same of a further key of the job.
SELECT sealed, imported, revoked_ms, expires_ms, overlap_ms, ended_ms FROM tokens WHERE job = :job AND kid = :kid;

-- insert_subscription: a subscriber sees a job for the first time.
INSERT INTO subscriptions (job, subscriber, start_seq, last_seq, handled_seq, created_ms)
VALUES (:job, :subscriber, :start_seq, :start_seq, :start_seq, :now)
RETURNING id;

-- advance_subscription: a newer event was accepted.
UPDATE subscriptions SET last_seq = :seq, last_event_ms = :now WHERE id = :subscription;

-- rewind_handled: a late event was accepted; the handler has not seen it.
UPDATE subscriptions
SET handled_seq = CASE WHEN handled_seq < :seq THEN handled_seq ELSE :seq - 1 END, last_event_ms = :now
WHERE id = :subscription;

-- insert_gap: seqs that a subscriber skipped over.
INSERT INTO gaps (subscription, first_seq, last_seq) VALUES (:subscription, :first_seq, :last_seq);

-- gap_containing_seq: the skipped range in which a seq lies. Ranges are apart, so only the nearest before it can hold it.
SELECT first_seq, last_seq FROM gaps
WHERE subscription = :subscription AND last_seq >= :seq
  AND first_seq = (SELECT max(first_seq) FROM gaps WHERE subscription = :subscription AND first_seq <= :seq);

-- delete_gap: a skipped range is taken apart.
DELETE FROM gaps WHERE subscription = :subscription AND first_seq = :first_seq;

-- follow_events: recorded events in order, less those that the subscriber skipped over: in the nearest range before.
SELECT CAST(:job_id AS TEXT), e.seq, e.event, e.attempt, e.recorded_ms, e.payload
FROM events AS e
WHERE e.job = (SELECT id FROM jobs WHERE job_id = :job_id) AND e.seq > :after
  AND e.seq > COALESCE((SELECT g.last_seq FROM gaps AS g
                        WHERE g.subscription = :subscription AND g.first_seq <= e.seq
                        ORDER BY g.first_seq DESC LIMIT 1), 0)
ORDER BY e.seq LIMIT :limit;

-- follow_seqs: the same without the events.
SELECT CAST(:job_id AS TEXT), e.seq
FROM events AS e
WHERE e.job = (SELECT id FROM jobs WHERE job_id = :job_id) AND e.seq > :after
  AND e.seq > COALESCE((SELECT g.last_seq FROM gaps AS g
                        WHERE g.subscription = :subscription AND g.first_seq <= e.seq
                        ORDER BY g.first_seq DESC LIMIT 1), 0)
ORDER BY e.seq LIMIT :limit;

-- add_verdict_count: some more of a verdict.
INSERT INTO verdict_counts (job, verdict, count, last_ms) VALUES (:job, :verdict, :count, :now)
ON CONFLICT (job, verdict) DO UPDATE SET count = verdict_counts.count + excluded.count, last_ms = excluded.last_ms;

-- insert_refusal: an authentic event that was refused, once.
INSERT INTO refusals (job, subscriber, verdict, seq, recorded_ms, digest, reason, payload)
VALUES (:job, :subscriber, :verdict, :seq, :now, :digest, :reason, :payload)
ON CONFLICT (job, subscriber, verdict, digest) DO NOTHING
RETURNING id;

-- trim_refusals_of_job: keeps the newest of one job.
DELETE FROM refusals
WHERE job = :job
  AND id <= (SELECT id FROM refusals WHERE job = :job ORDER BY id DESC LIMIT 1 OFFSET :keep);

-- trim_refusals: keeps the newest in all.
DELETE FROM refusals WHERE id <= :newest - :keep;

-- list_refusals: newest first.
SELECT r.id, j.job_id, r.subscriber, r.verdict, r.seq, r.recorded_ms, r.reason
FROM refusals AS r JOIN jobs AS j ON j.id = r.job
WHERE r.id < :below AND (CAST(:job_id AS TEXT) IS NULL OR j.job_id = :job_id)
ORDER BY r.id DESC LIMIT :limit;

-- verdict_totals: how often each refusal was given.
SELECT verdict, sum(count), max(last_ms) FROM verdict_counts GROUP BY verdict;

-- verdict_counts_of_job: the same for one job.
SELECT v.verdict, v.count, v.last_ms
FROM jobs AS j JOIN verdict_counts AS v ON v.job = j.id WHERE j.job_id = :job_id;

-- subscription_state: a subscriber's numbers for a job, and the job's end.
SELECT j.id, j.status, j.last_seq, j.terminal_seq, s.id, s.start_seq, s.last_seq, s.handled_seq
FROM jobs AS j LEFT JOIN subscriptions AS s ON s.job = j.id AND s.subscriber = :subscriber
WHERE j.job_id = :job_id;

-- mark_handled: the handler is done with a seq, the next after another; not if one before it was accepted meanwhile.
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

-- get_feed: how far a subscriber of all jobs has looked.
SELECT start_event, event FROM feeds WHERE subscriber = :subscriber;

-- insert_feed: a new subscriber of all jobs.
INSERT INTO feeds (subscriber, start_event, event) VALUES (:subscriber, :start_event, :start_event)
ON CONFLICT (subscriber) DO NOTHING;

-- advance_feed: it has looked further.
UPDATE feeds SET event = :event WHERE subscriber = :subscriber AND event < :event;

-- newest_event: the last event's number.
SELECT COALESCE(max(id), 0) FROM events;

-- feed_page: the jobs of the events after one, in order, as far as no other can appear between them.
SELECT e.id, j.job_id, e.recorded_ms FROM events AS e JOIN jobs AS j ON j.id = e.job
WHERE e.id > :after AND e.id <= :settled ORDER BY e.id LIMIT :limit;

-- unhandled_jobs: jobs with events that a subscriber accepted and has not handled.
SELECT j.job_id FROM subscriptions AS s JOIN jobs AS j ON j.id = s.job
WHERE s.subscriber = :subscriber AND s.handled_seq < s.last_seq ORDER BY j.id LIMIT :limit;

-- seq_at_event: a job's highest seq among the events up to one.
SELECT COALESCE(max(e.seq), 0) FROM events AS e WHERE e.job = :job AND e.id <= :event;
