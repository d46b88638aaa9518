-- Statements of the snapshot for the live view.

-- watch_jobs: the jobs of one status, newest first, without their prompts.
SELECT job_id, status, agent, agent_session, attempt, worker, started_ms, created_ms, last_event, last_event_ms,
       timeout_sec, idle_timeout_sec, lease_until_ms, finished_ms, detail, strikes, max_attempts, not_before_ms,
       last_event = 'permission_required'
           AND EXISTS (SELECT 1 FROM questions AS q
                       WHERE q.job = jobs.id AND q.seq = jobs.last_seq AND q.answer IS NOT NULL)
FROM jobs WHERE status = :status ORDER BY id DESC LIMIT :limit;
