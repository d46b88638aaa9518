-- Statements of the web view, on the stable views only. All except those named page_... are canned queries.

-- running_jobs: running jobs; those waiting for permission first, then by time since their last event.
SELECT job_id, agent, last_event, detail, attempt, worker,
       CAST(strftime('%s', 'now') - strftime('%s', started_at) AS INTEGER) AS running_sec, timeout_sec,
       CAST(strftime('%s', 'now') - strftime('%s', COALESCE(last_event_at, started_at, created_at)) AS INTEGER)
           AS idle_sec, idle_timeout_sec, lease_expires_at
FROM v_jobs WHERE status = 'running'
ORDER BY last_event IS 'permission_required' DESC, idle_sec DESC;

-- waiting_for_permission: running jobs whose last event demands a permission that nobody has given or refused.
SELECT job_id, agent, agent_session, detail, last_event_at, prompt
FROM v_jobs AS v
WHERE status = 'running' AND last_event = 'permission_required'
  AND NOT EXISTS (SELECT 1 FROM v_questions AS q
                  WHERE q.job_id = v.job_id AND q.seq = v.last_seq AND q.answer IS NOT NULL)
ORDER BY last_event_at;

-- open_questions: what agents ask and nobody has answered; 'jobdb answer' does.
SELECT job_id, key, text, choices, agent, attempt, job_status, asked_at
FROM v_questions WHERE is_open ORDER BY asked_at, job_id, key;

-- refusals: the jobs whose events were refused, how often, and the last reason.
SELECT v.job_id, v.verdict, v.count, v.last_at,
       (SELECT r.reason FROM v_refusals AS r WHERE r.job_id = v.job_id AND r.verdict = v.verdict
        ORDER BY r.number DESC LIMIT 1) AS last_reason
FROM v_verdicts AS v ORDER BY v.last_at DESC;

-- durations: the time from claim to end, by agent and outcome.
SELECT agent, status, count(*) AS jobs, round(avg(duration_sec), 1) AS mean_sec, min(duration_sec) AS shortest_sec,
       max(duration_sec) AS longest_sec
FROM v_jobs WHERE duration_sec IS NOT NULL GROUP BY agent, status ORDER BY agent, status;

-- subscribers_behind: subscribers that have not accepted the latest events of a job.
SELECT subscriber, job_id, job_status, last_seq, job_last_seq, behind, last_event_at
FROM v_subscriptions WHERE behind > 0 ORDER BY behind DESC;

-- job: the events of one job, in order.
SELECT seq, recorded_at, event, detail, data, attempt,
       CASE WHEN waits_for_broker THEN 'waits for the broker' ELSE '' END AS delivery
FROM v_events WHERE job_id = :job_id ORDER BY seq;

-- page_job: the job's record, for its page.
SELECT * FROM v_jobs WHERE job_id = :job_id;

-- page_counts: the number of jobs per status.
SELECT status, count(*) FROM v_jobs GROUP BY status;

-- page_asking: the number of jobs that wait for a permission.
SELECT count(*) FROM v_jobs AS v
WHERE status = 'running' AND last_event = 'permission_required'
  AND NOT EXISTS (SELECT 1 FROM v_questions AS q
                  WHERE q.job_id = v.job_id AND q.seq = v.last_seq AND q.answer IS NOT NULL);

-- page_questions: the number of open questions.
SELECT count(*) FROM v_questions WHERE is_open;

-- page_refused: the number of refused events.
SELECT sum(count) FROM v_verdicts;

-- page_days: jobs by day of registration.
SELECT substr(created_at, 1, 10) AS day, status, count(*) FROM v_jobs
WHERE created_at >= strftime('%Y-%m-%d', 'now', :days) GROUP BY 1, 2 ORDER BY 1 DESC, 2;

-- page_times: the duration of jobs, by agent.
SELECT agent, count(*) AS jobs, round(avg(duration_sec), 1) AS mean_sec, max(duration_sec) AS longest_sec
FROM v_jobs WHERE duration_sec IS NOT NULL GROUP BY agent ORDER BY mean_sec DESC LIMIT 12;
