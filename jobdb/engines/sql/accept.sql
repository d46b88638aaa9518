-- Statements about accepting wire events, subscribers and refusals.

-- accept_state: everything that determines a verdict, in one row; the columns of sender_credentials come first.
SELECT j.id, j.kid, j.topic_prefix, j.updated_ms, t.sealed, t.imported, t.revoked_ms, t.expires_ms, t.overlap_ms,
       t.ended_ms,
       j.status, j.last_seq, j.terminal_seq, j.attempt, s.id, s.start_seq, s.last_seq, e.digest, e.recorded_ms
FROM jobs AS j
LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = :kid
LEFT JOIN subscriptions AS s ON s.job = j.id AND s.subscriber = :subscriber
LEFT JOIN events AS e ON e.job = j.id AND e.seq = :seq
WHERE j.job_id = :job_id;

-- sender_credentials: who may speak for a job with a key: before the write lock is requested, and for each further key
-- that a batch names.
SELECT j.id, j.kid, j.topic_prefix, j.updated_ms, t.sealed, t.imported, t.revoked_ms, t.expires_ms, t.overlap_ms,
       t.ended_ms
FROM jobs AS j LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = :kid
WHERE j.job_id = :job_id;

-- stored_event: the digest and time of a recorded event, for each further event of a job in a batch.
SELECT digest, recorded_ms FROM events WHERE job = :job AND seq = :seq;

-- insert_subscription: begin a subscription when a subscriber sees a job for the first time.
INSERT INTO subscriptions (job, subscriber, start_seq, last_seq, handled_seq, created_ms)
VALUES (:job, :subscriber, :start_seq, :start_seq, :start_seq, :now)
RETURNING id;

-- advance_subscription: record that a newer event was accepted.
UPDATE subscriptions SET last_seq = :seq, last_event_ms = :now WHERE id = :subscription;

-- rewind_handled: record that a late event, which the handler has not seen, was accepted.
UPDATE subscriptions
SET handled_seq = CASE WHEN handled_seq < :seq THEN handled_seq ELSE :seq - 1 END, last_event_ms = :now
WHERE id = :subscription;

-- insert_gap: record a range of seqs that a subscriber skipped over.
INSERT INTO gaps (subscription, first_seq, last_seq) VALUES (:subscription, :first_seq, :last_seq);

-- gap_containing_seq: the skipped range that contains a seq. Ranges do not overlap, so only the nearest one can.
SELECT first_seq, last_seq FROM gaps
WHERE subscription = :subscription AND last_seq >= :seq
  AND first_seq = (SELECT max(first_seq) FROM gaps WHERE subscription = :subscription AND first_seq <= :seq);

-- delete_gap: delete a skipped range of which one seq has arrived.
DELETE FROM gaps WHERE subscription = :subscription AND first_seq = :first_seq;

-- add_verdict_count: add to the count of a verdict.
INSERT INTO verdict_counts (job, verdict, count, last_ms) VALUES (:job, :verdict, :count, :now)
ON CONFLICT (job, verdict) DO UPDATE SET count = verdict_counts.count + excluded.count, last_ms = excluded.last_ms;

-- insert_refusal: record an authentic event that was refused, only once.
INSERT INTO refusals (job, subscriber, verdict, seq, recorded_ms, digest, reason, payload)
VALUES (:job, :subscriber, :verdict, :seq, :now, :digest, :reason, :payload)
ON CONFLICT (job, subscriber, verdict, digest) DO NOTHING
RETURNING id;

-- trim_refusals_of_job: keep the newest refusals of one job.
DELETE FROM refusals
WHERE job = :job
  AND id <= (SELECT id FROM refusals WHERE job = :job ORDER BY id DESC LIMIT 1 OFFSET :keep);

-- trim_refusals: keep the newest refusals of all jobs.
DELETE FROM refusals WHERE id <= :newest - :keep;

-- list_refusals: refusals, newest first.
SELECT r.id, j.job_id, r.subscriber, r.verdict, r.seq, r.recorded_ms, r.reason
FROM refusals AS r JOIN jobs AS j ON j.id = r.job
WHERE r.id < :below AND (CAST(:job_id AS TEXT) IS NULL OR j.job_id = :job_id)
ORDER BY r.id DESC LIMIT :limit;

-- verdict_totals: the count and the last time of each verdict, for all jobs.
SELECT verdict, sum(count), max(last_ms) FROM verdict_counts GROUP BY verdict;

-- verdict_counts_of_job: the count and the last time of each verdict, for one job.
SELECT v.verdict, v.count, v.last_ms
FROM jobs AS j JOIN verdict_counts AS v ON v.job = j.id WHERE j.job_id = :job_id;
