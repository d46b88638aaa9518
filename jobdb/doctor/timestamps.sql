-- Statements of the doctor for times in the future. :latest is now plus the tolerance for hosts' clocks, in
-- Unix milliseconds.

-- times_job_leases: leases of running jobs that began in the future.
SELECT count(*) FROM jobs
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms > :latest
  AND lease_until_ms - lease_ms > :latest;

-- times_delays: delays of pending jobs that began in the future.
SELECT count(*) FROM jobs
WHERE status = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms > :latest
  AND not_before_ms - delay_ms > :latest;

-- times_workers: workers that started or were heard of in the future.
SELECT count(*) FROM workers WHERE started_ms > :latest OR heartbeat_ms > :latest;

-- times_named_leases: named leases that began in the future.
SELECT count(*) FROM leases WHERE until_ms - COALESCE(lease_ms, 3600000) > :latest;

-- times_overlaps: overlaps of rotated tokens that began in the future.
SELECT count(*) FROM tokens
WHERE expires_ms - overlap_ms > :latest AND revoked_ms IS NULL AND ended_ms IS NULL;

-- times_jobs: jobs that ended, started or published in the future.
SELECT (SELECT count(*) FROM jobs WHERE finished_ms > :latest)
     + (SELECT count(*) FROM jobs
        WHERE status = 'running' AND (started_ms > :latest
                                      OR last_event_ms > :latest));

-- times_fix_job_leases: let such leases expire now.
UPDATE jobs SET lease_until_ms = :now, lease_ms = 0
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms > :latest
  AND lease_until_ms - lease_ms > :latest;

-- times_fix_delays: let such delays end now.
UPDATE jobs SET not_before_ms = NULL, delay_ms = NULL
WHERE status = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms > :latest
  AND not_before_ms - delay_ms > :latest;

-- times_fix_workers: set the times of workers to now.
UPDATE workers
SET started_ms = CASE WHEN started_ms > :latest THEN :now ELSE started_ms END,
    heartbeat_ms = CASE WHEN heartbeat_ms > :latest THEN :now ELSE heartbeat_ms END
WHERE started_ms > :latest OR heartbeat_ms > :latest;

-- times_fix_attempts: set the times of attempts to now.
UPDATE attempts SET started_ms = :now WHERE started_ms > :latest;

-- times_fix_named_leases: delete such leases.
DELETE FROM leases WHERE until_ms - COALESCE(lease_ms, 3600000) > :latest;

-- times_fix_overlaps: end such overlaps now.
UPDATE tokens SET ended_ms = :now
WHERE expires_ms - overlap_ms > :latest AND revoked_ms IS NULL AND ended_ms IS NULL;

-- times_fix_jobs: set the times of jobs to now. An import compares records with updated_ms, so jobs that have not
-- changed since their import keep theirs.
UPDATE jobs
SET created_ms = CASE WHEN created_ms > :latest THEN :now ELSE created_ms END,
    updated_ms = CASE WHEN updated_ms > :latest THEN :now ELSE updated_ms END,
    started_ms = CASE WHEN started_ms > :latest THEN :now ELSE started_ms END,
    last_event_ms = CASE WHEN last_event_ms > :latest THEN :now ELSE last_event_ms END,
    finished_ms = CASE WHEN finished_ms > :latest THEN :now ELSE finished_ms END
WHERE (created_ms > :latest OR updated_ms > :latest
       OR started_ms > :latest OR last_event_ms > :latest
       OR finished_ms > :latest)
  AND NOT EXISTS (SELECT 1 FROM imports AS i WHERE i.job = jobs.id AND i.updated_ms = jobs.updated_ms);

-- times_fix_events: set the times of events to now.
UPDATE events SET recorded_ms = :now WHERE recorded_ms > :latest;

-- times_fix_subscriptions: set the times of subscribers to now.
UPDATE subscriptions
SET created_ms = CASE WHEN created_ms > :latest THEN :now ELSE created_ms END,
    last_event_ms = CASE WHEN last_event_ms > :latest THEN :now ELSE last_event_ms END
WHERE created_ms > :latest OR last_event_ms > :latest;

-- times_fix_verdicts: set the times of verdict counts to now.
UPDATE verdict_counts SET last_ms = :now WHERE last_ms > :latest;

-- times_fix_refusals: set the times of recorded refusals to now.
UPDATE refusals SET recorded_ms = :now WHERE recorded_ms > :latest;
