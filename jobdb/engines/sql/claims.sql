-- Statements for claims and time limits. Without statistics SQLite picks the wrong index for some: they name it.
-- An end that is later than now plus its own length was computed while a clock was ahead: it is void. A difference of a
-- minute (60000) is tolerated: hosts that share a folder have their own clocks, and clocks are adjusted by seconds.

-- claim_blockers: 1 if a delayed job is due, and 1 if a lease has expired: both before the next claim.
SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_delayed
               WHERE status = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms <= :now),
       EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_leased
               WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms <= :now);

-- next_ready: when the first delayed job is due, and when the first lease expires.
SELECT (SELECT min(not_before_ms) FROM jobs INDEXED BY jobs_delayed
        WHERE status = 'pending' AND not_before_ms IS NOT NULL),
       (SELECT min(lease_until_ms) FROM jobs INDEXED BY jobs_leased
        WHERE status = 'running' AND lease_until_ms IS NOT NULL);

-- ready_due_jobs: make jobs ready whose time has come.
UPDATE jobs SET not_before_ms = NULL, delay_ms = NULL
WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_delayed
             WHERE status = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms <= :now
             ORDER BY not_before_ms LIMIT :limit);

-- ready_void_delays: make jobs ready whose delay ends later than it can.
UPDATE jobs SET not_before_ms = NULL, delay_ms = NULL
WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_delayed
             WHERE status = 'pending' AND not_before_ms IS NOT NULL
               AND not_before_ms > CAST(:now AS BIGINT) + 60000
               AND not_before_ms - delay_ms > CAST(:now AS BIGINT) + 60000
             ORDER BY not_before_ms DESC LIMIT :limit);

-- claim_next: claim the oldest ready jobs of the highest priority for a worker.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id IN (
    SELECT id FROM jobs INDEXED BY jobs_ready
    WHERE status = 'pending' AND not_before_ms IS NULL ORDER BY priority DESC, id LIMIT :count
)
RETURNING id;

-- claim_next_by_agent: claim the first ready jobs of one agent for a worker.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id IN (
    SELECT id FROM jobs INDEXED BY jobs_ready_by_agent
    WHERE status = 'pending' AND not_before_ms IS NULL AND agent = :agent ORDER BY priority DESC, id LIMIT :count
)
RETURNING id;

-- claim_next_by_session: claim the first ready jobs of one agent session for a worker.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id IN (
    SELECT id FROM jobs INDEXED BY jobs_ready_by_session
    WHERE status = 'pending' AND not_before_ms IS NULL AND agent_session IS NOT NULL AND agent_session = :agent_session
      AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    ORDER BY priority DESC, id LIMIT :count
)
RETURNING id;

-- claim_job: claim one named job for a worker, if it is pending and due.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now,
    not_before_ms = NULL, delay_ms = NULL
WHERE job_id = :job_id AND status = 'pending'
  AND (not_before_ms IS NULL OR not_before_ms <= :now OR not_before_ms - delay_ms > CAST(:now AS BIGINT) + 60000)
RETURNING id;

-- expired_lease_of: the job of one id, if its lease has expired, or ends later than it can.
SELECT job_id, id, strikes, worker, attempt, max_attempts, lease_until_ms FROM jobs
WHERE job_id = :job_id AND status = 'running' AND lease_until_ms IS NOT NULL
  AND (lease_until_ms <= :now OR (lease_until_ms > CAST(:now AS BIGINT) + 60000
                                  AND lease_until_ms - lease_ms > CAST(:now AS BIGINT) + 60000));

-- renew_lease: extend the lease of a current claim.
UPDATE jobs SET lease_until_ms = :lease_until, lease_ms = CAST(:lease_until AS BIGINT) - :now, updated_ms = :now WHERE id = :job;

-- give_back: return a claimed job to pending; count a try if it is used up, and delay the next one.
UPDATE jobs
SET status = 'pending', lease_until_ms = NULL, worker = NULL, strikes = strikes + :strike, updated_ms = :now,
    not_before_ms = :not_before, delay_ms = CAST(:not_before AS BIGINT) - :now, detail = COALESCE(:detail, detail)
WHERE id = :job;

-- expired_leases: running jobs whose lease has expired.
SELECT job_id, id, strikes, worker, attempt, max_attempts FROM jobs INDEXED BY jobs_leased
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms <= :now
ORDER BY lease_until_ms LIMIT :limit;

-- void_leases: running jobs whose lease ends later than it can.
SELECT job_id, id, worker, attempt FROM jobs INDEXED BY jobs_leased
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms > CAST(:now AS BIGINT) + 60000
  AND lease_until_ms - lease_ms > CAST(:now AS BIGINT) + 60000
ORDER BY lease_until_ms DESC LIMIT :limit;

-- restart_limits: count the time limits from now for running jobs that began, or last published, later than now.
UPDATE jobs
SET started_ms = CASE WHEN COALESCE(started_ms, created_ms) > CAST(:now AS BIGINT) + 60000 THEN :now ELSE started_ms END,
    last_event_ms = CASE WHEN last_event_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE last_event_ms END
WHERE id IN (SELECT id FROM jobs
             WHERE status = 'running'
               AND (COALESCE(started_ms, created_ms) > CAST(:now AS BIGINT) + 60000 OR last_event_ms > CAST(:now AS BIGINT) + 60000)
             LIMIT :limit);

-- overdue_jobs: running jobs past their time limits, which count from the claim, or from the registration if a clock
-- was behind at the claim. A live lease protects a job from the idle limit, and so does an open question; an answer is a
-- sign of life. A job whose lease has expired is given back first.
SELECT job_id, id, timeout_sec, idle_timeout_sec, began_ms, max(COALESCE(last_event_ms, 0), answered_ms), attempt
FROM (SELECT *, CASE WHEN started_ms < created_ms AND created_ms <= :now THEN created_ms
                     ELSE COALESCE(started_ms, created_ms) END AS began_ms,
             COALESCE((SELECT max(q.answered_ms) FROM questions AS q WHERE q.job = jobs.id), 0) AS answered_ms
      FROM jobs WHERE status = 'running' AND (lease_until_ms IS NULL OR lease_until_ms > :now)) AS running
WHERE (timeout_sec > 0 AND began_ms + timeout_sec * 1000 <= :now)
   OR (idle_timeout_sec > 0 AND lease_until_ms IS NULL
       AND (COALESCE(last_event, '') <> 'permission_required'
            OR EXISTS (SELECT 1 FROM questions AS q
                       WHERE q.job = running.id AND q.seq = running.last_seq AND q.answer IS NOT NULL))
       AND NOT EXISTS (SELECT 1 FROM questions AS q
                       WHERE q.job = running.id AND q.answer IS NULL AND q.attempt = running.attempt)
       AND max(COALESCE(last_event_ms, 0), began_ms, answered_ms) + idle_timeout_sec * 1000 <= :now)
ORDER BY id LIMIT :limit;

-- end_job: end a job for which no event can be signed or numbered, without an event.
UPDATE jobs
SET status = 'error', finished_ms = :now, updated_ms = :now, terminal_seq = last_seq, lease_until_ms = NULL,
    detail = :detail
WHERE id = :job;
