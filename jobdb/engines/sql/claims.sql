-- Statements for claims and time limits. Without statistics SQLite picks the wrong index for some: they name it.
-- An end that is later than now plus its own length was computed while a clock was ahead: it is void. A difference of a
-- minute (60000) is tolerated: hosts that share a folder have their own clocks, and clocks are adjusted by seconds.

-- claim_next: claim the oldest pending job of the highest priority for a worker.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id = (
    SELECT id FROM jobs INDEXED BY jobs_pending WHERE status = 'pending' ORDER BY priority DESC, id LIMIT 1
)
RETURNING id;

-- claim_next_by_agent: claim the first pending job of one agent for a worker.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id = (
    SELECT id FROM jobs INDEXED BY jobs_pending_by_agent
    WHERE status = 'pending' AND agent = :agent ORDER BY priority DESC, id LIMIT 1
)
RETURNING id;

-- claim_next_by_session: claim the first pending job of one agent session for a worker.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id = (
    SELECT id FROM jobs INDEXED BY jobs_pending_by_session
    WHERE status = 'pending' AND agent_session IS NOT NULL AND agent_session = :agent_session
      AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    ORDER BY priority DESC, id LIMIT 1
)
RETURNING id;

-- claim_job: claim one named job for a worker, if it is pending.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE job_id = :job_id AND status = 'pending'
RETURNING id;

-- renew_lease: extend the lease of a current claim.
UPDATE jobs SET lease_until_ms = :lease_until, lease_ms = CAST(:lease_until AS BIGINT) - :now, updated_ms = :now WHERE id = :job;

-- release_job: return a claimed job to pending.
UPDATE jobs SET status = 'pending', lease_until_ms = NULL, worker = NULL, updated_ms = :now WHERE id = :job;

-- expired_leases: running jobs whose lease has expired.
SELECT job_id, id, strikes, worker, attempt FROM jobs INDEXED BY jobs_leased
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms <= :now
ORDER BY lease_until_ms LIMIT :limit;

-- void_leases: running jobs whose lease ends later than it can.
SELECT job_id, id, worker, attempt FROM jobs INDEXED BY jobs_leased
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms > CAST(:now AS BIGINT) + 60000
  AND lease_until_ms - lease_ms > CAST(:now AS BIGINT) + 60000
ORDER BY lease_until_ms DESC LIMIT :limit;

-- return_void_lease: return a job with a void lease to pending. Its worker is not at fault, so no strike is counted.
UPDATE jobs
SET status = 'pending', lease_until_ms = NULL, worker = NULL, updated_ms = :now, detail = :detail
WHERE id = :job;

-- restart_limits: count the time limits from now for running jobs that began, or last published, later than now.
UPDATE jobs
SET started_ms = CASE WHEN COALESCE(started_ms, created_ms) > CAST(:now AS BIGINT) + 60000 THEN :now ELSE started_ms END,
    last_event_ms = CASE WHEN last_event_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE last_event_ms END
WHERE id IN (SELECT id FROM jobs
             WHERE status = 'running'
               AND (COALESCE(started_ms, created_ms) > CAST(:now AS BIGINT) + 60000 OR last_event_ms > CAST(:now AS BIGINT) + 60000)
             LIMIT :limit);

-- return_to_pending: return a job with an expired lease to pending, and count a strike.
UPDATE jobs
SET status = 'pending', lease_until_ms = NULL, worker = NULL, strikes = strikes + 1, updated_ms = :now,
    detail = :detail
WHERE id = :job;

-- overdue_jobs: running jobs past their time limits, which count from the claim, or from the registration if a clock
-- was behind at the claim.
SELECT job_id, id, timeout_sec, idle_timeout_sec, began_ms, last_event_ms
FROM (SELECT *, CASE WHEN started_ms < created_ms AND created_ms <= :now THEN created_ms
                     ELSE COALESCE(started_ms, created_ms) END AS began_ms FROM jobs
      WHERE status = 'running') AS running
WHERE (timeout_sec > 0 AND began_ms + timeout_sec * 1000 <= :now)
   OR (idle_timeout_sec > 0
       AND CASE WHEN last_event_ms > began_ms THEN last_event_ms ELSE began_ms END + idle_timeout_sec * 1000 <= :now)
ORDER BY id LIMIT :limit;

-- end_job: end a job for which no event can be signed or numbered, without an event.
UPDATE jobs
SET status = 'error', finished_ms = :now, updated_ms = :now, terminal_seq = last_seq, lease_until_ms = NULL,
    detail = :detail
WHERE id = :job;
