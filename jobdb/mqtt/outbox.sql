-- Statements of a registry's outbox, as the relay reads it.

-- undelivered_jobs: the jobs with undelivered events, by number; one index step per job, however many events.
WITH RECURSIVE waiting (job, place) AS (
    SELECT min(o.job), 1 FROM outbox AS o WHERE o.job > :after
    UNION ALL
    SELECT (SELECT min(o.job) FROM outbox AS o WHERE o.job > w.job), w.place + 1
    FROM waiting AS w WHERE w.job IS NOT NULL AND w.place < :limit
)
SELECT w.job, j.job_id, j.topic_prefix, s.broker, s.broker_password
FROM waiting AS w
JOIN jobs AS j ON j.id = w.job
JOIN specs AS s ON s.job = w.job
ORDER BY w.job;

-- undelivered_job: the same for one job.
SELECT j.id, j.job_id, j.topic_prefix, s.broker, s.broker_password
FROM jobs AS j
JOIN specs AS s ON s.job = j.id
WHERE j.job_id = :job_id AND EXISTS (SELECT 1 FROM outbox AS o WHERE o.job = j.id);

-- undelivered_events: a job's undelivered events, in order.
SELECT o.event, e.seq, e.event, e.payload
FROM outbox AS o JOIN events AS e ON e.id = o.event
WHERE o.job = :job AND o.event > :after
ORDER BY o.event LIMIT :limit;

-- count_undelivered_of_job: the number of undelivered events of a job.
SELECT count(*) FROM jobs AS j JOIN outbox AS o ON o.job = j.id WHERE j.job_id = :job_id;

-- job_instance: distinguishes a job from others that have or had its id.
SELECT id, created_ms FROM jobs WHERE job_id = :job_id;
