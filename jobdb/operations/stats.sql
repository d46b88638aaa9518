-- Statements of the statistics.

-- stats_by_agent: jobs by agent and status.
SELECT agent, status, count(*) FROM jobs GROUP BY agent, status ORDER BY agent, status;

-- stats_by_day: jobs by day of registration and current status.
SELECT created_ms / 86400000, status, count(*) FROM jobs WHERE created_ms >= :since
GROUP BY created_ms / 86400000, status ORDER BY 1, 2;

-- stats_readiness: how many pending jobs nobody can claim yet, and how many jobs that have not ended have used up tries.
SELECT COALESCE(sum(CASE WHEN status = 'pending' AND not_before_ms > :now THEN 1 ELSE 0 END), 0),
       COALESCE(sum(CASE WHEN strikes > 0 THEN 1 ELSE 0 END), 0)
FROM jobs WHERE status IN ('pending', 'running');

-- stats_durations: the time from claim to end, by agent.
SELECT agent, count(*), avg(finished_ms - started_ms), max(finished_ms - started_ms) FROM jobs
WHERE finished_ms >= :since AND started_ms IS NOT NULL GROUP BY agent ORDER BY agent;

-- stats_events: the number of stored events.
SELECT count(*) FROM events;

-- stats_open_questions: the number of questions that can be answered.
SELECT count(*) FROM questions AS q CROSS JOIN jobs AS j
WHERE j.id = q.job AND q.answer IS NULL AND j.status IN ('pending', 'running') AND q.attempt = j.attempt;
