-- Statements for publishing and reading events.

-- publish_state: the state of a job and its current token, from which an event is numbered and signed.
SELECT j.id, j.status, j.last_seq, j.attempt, j.has_broker, j.kid, t.sealed, t.revoked_ms, j.worker,
       j.lease_until_ms
FROM jobs AS j LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
WHERE j.job_id = :job_id;

-- publish_states: the same for several jobs; the ids are a JSON array.
SELECT j.id, j.status, j.last_seq, j.attempt, j.has_broker, j.kid, t.sealed, t.revoked_ms, j.worker,
       j.lease_until_ms, j.job_id
FROM jobs AS j LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
WHERE j.job_id IN (SELECT value FROM json_each(:job_ids));

-- insert_event: record an event.
INSERT INTO events (job, seq, event, attempt, recorded_ms, digest, payload)
VALUES (:job, :seq, :event, :attempt, :now, :digest, :payload);

-- insert_delivery: add an event to the outbox.
INSERT INTO outbox (event, job) SELECT id, job FROM events WHERE job = :job AND seq = :seq;

-- advance_job: record the last event of a running job.
UPDATE jobs
SET last_seq = :seq, last_event = :event, last_event_ms = :now, updated_ms = :now, detail = :detail
WHERE id = :job;

-- advance_job_if_unchanged: the same, if the job is as expected and its token is unchanged and not revoked.
UPDATE jobs
SET last_seq = :seq, last_event = :event, last_event_ms = :now, updated_ms = :now, detail = :detail
WHERE id = :job AND job_id = :job_id AND status = 'running' AND last_seq = :last_seq AND attempt = :attempt
  AND has_broker = :has_broker AND kid = :kid AND (:fenced = 1 OR lease_until_ms IS NULL)
  AND (kid = 0 OR EXISTS (
      SELECT 1 FROM tokens WHERE job = :job AND kid = :kid AND sealed = :sealed AND revoked_ms IS NULL
  ));

-- start_job: start a pending job for which an event was published: somebody works on it.
UPDATE jobs
SET status = 'running', attempt = :attempt, last_seq = :seq, last_event = :event, last_event_ms = :now,
    started_ms = :now, updated_ms = :now, not_before_ms = NULL, delay_ms = NULL, detail = :detail
WHERE id = :job;

-- finish_job: end a job by its terminal event.
UPDATE jobs
SET status = :status, attempt = :attempt, last_seq = :last_seq, terminal_seq = :seq, last_event = :event,
    last_event_ms = :now, finished_ms = :now, updated_ms = :now, lease_until_ms = NULL,
    not_before_ms = NULL, delay_ms = NULL, detail = :detail
WHERE id = :job;

-- list_events: a page of a job's events, in order.
SELECT CAST(:job_id AS TEXT), e.seq, e.event, e.attempt, e.recorded_ms, e.payload
FROM events AS e
WHERE e.job = (SELECT id FROM jobs WHERE job_id = :job_id) AND e.seq > :after
ORDER BY e.seq LIMIT :limit;
