-- Statements of the doctor for the work. Those without GROUP BY return one row.

-- doctor_expired_leases: expired leases that were not reaped.
SELECT count(*), min(lease_until_ms) FROM jobs
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms <= :now;

-- doctor_overdue: running jobs that reap would end: past their limits, and protected by no live lease or open question.
-- An expired lease is a finding of its own: reap gives such a job back first.
SELECT count(*)
FROM (SELECT *, CASE WHEN started_ms < created_ms AND created_ms <= :now THEN created_ms
                     ELSE COALESCE(started_ms, created_ms) END AS began_ms FROM jobs
      WHERE status = 'running' AND (lease_until_ms IS NULL OR lease_until_ms > :now)) AS running
WHERE (timeout_sec > 0 AND began_ms + timeout_sec * 1000 <= :now)
   OR (idle_timeout_sec > 0 AND lease_until_ms IS NULL AND COALESCE(last_event, '') <> 'permission_required'
       AND CASE WHEN last_event_ms > began_ms THEN last_event_ms ELSE began_ms END + idle_timeout_sec * 1000 <= :now);

-- doctor_overdue_imports: overdue jobs that were imported, and whose agents may not know this database.
SELECT count(*)
FROM (SELECT *, CASE WHEN started_ms < created_ms AND created_ms <= :now THEN created_ms
                     ELSE COALESCE(started_ms, created_ms) END AS began_ms FROM jobs
      WHERE status = 'running' AND attempt = 0 AND EXISTS (SELECT 1 FROM imports WHERE imports.job = jobs.id)) AS running
WHERE (timeout_sec > 0 AND began_ms + timeout_sec * 1000 <= :now)
   OR (idle_timeout_sec > 0 AND lease_until_ms IS NULL AND COALESCE(last_event, '') <> 'permission_required'
       AND CASE WHEN last_event_ms > began_ms THEN last_event_ms ELSE began_ms END + idle_timeout_sec * 1000 <= :now);

-- doctor_stuck_jobs: silent running jobs that neither a lease nor a limit will ever end, and the id of one.
SELECT count(*), min(job_id) FROM jobs
WHERE status = 'running' AND lease_until_ms IS NULL AND timeout_sec = 0 AND idle_timeout_sec = 0
  AND COALESCE(last_event_ms, started_ms, created_ms) <= :before;

-- doctor_permission: jobs that wait for a person.
SELECT count(*), min(last_event_ms), min(job_id) FROM jobs
WHERE status = 'running' AND last_event = 'permission_required';

-- doctor_relay: the number of relays that hold the lease to deliver: 0 or 1.
SELECT count(*) FROM leases
WHERE name = 'relay' AND until_ms > :now AND until_ms - COALESCE(lease_ms, 3600000) <= :latest;

-- doctor_handler_lag: subscribers with accepted events that their handlers have not finished, if they have a handler.
SELECT s.subscriber, count(*), sum(s.last_seq - s.handled_seq), min(j.job_id)
FROM subscriptions AS s JOIN jobs AS j ON j.id = s.job
WHERE s.last_seq > s.handled_seq AND s.handled_seq > s.start_seq AND s.last_event_ms <= :before
GROUP BY s.subscriber ORDER BY 3 DESC LIMIT 5;

-- doctor_subscriber_lag: subscribers that have not seen the recent events of a job.
SELECT s.subscriber, count(*), sum(j.last_seq - s.last_seq), min(j.job_id)
FROM subscriptions AS s JOIN jobs AS j ON j.id = s.job
WHERE j.last_seq > s.last_seq AND j.last_event_ms <= :before AND j.last_event_ms >= :since
GROUP BY s.subscriber ORDER BY 3 DESC LIMIT 5;

-- doctor_latest_update: the latest time among the newest jobs.
SELECT max(updated_ms) FROM jobs WHERE id IN (SELECT id FROM jobs ORDER BY id DESC LIMIT 1000);

-- doctor_refusals: recent refusals, by verdict.
SELECT verdict, sum(count), max(last_ms) FROM verdict_counts
WHERE last_ms >= :since AND verdict IN ('bad_signature', 'unsigned', 'revoked_key', 'replayed', 'conflict', 'wrong_topic')
GROUP BY verdict ORDER BY verdict;
