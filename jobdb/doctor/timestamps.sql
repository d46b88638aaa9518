-- Statements of the doctor about moments that are later than they can be. A minute of difference is borne (60000).

-- times_job_leases: leases of running jobs that end later than they can.
SELECT count(*) FROM jobs
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms > CAST(:now AS BIGINT) + 60000
  AND lease_until_ms - lease_ms > CAST(:now AS BIGINT) + 60000;

-- times_named_leases: the same of named leases.
SELECT count(*) FROM leases WHERE until_ms - COALESCE(lease_ms, 3600000) > CAST(:now AS BIGINT) + 60000;

-- times_overlaps: the same of tokens that were rotated out.
SELECT count(*) FROM tokens
WHERE expires_ms - overlap_ms > CAST(:now AS BIGINT) + 60000 AND revoked_ms IS NULL AND ended_ms IS NULL;

-- times_jobs: jobs of which something happened later than now.
SELECT (SELECT count(*) FROM jobs WHERE finished_ms > CAST(:now AS BIGINT) + 60000)
     + (SELECT count(*) FROM jobs
        WHERE status = 'running' AND (started_ms > CAST(:now AS BIGINT) + 60000
                                      OR last_event_ms > CAST(:now AS BIGINT) + 60000));

-- times_fix_job_leases: they have run out.
UPDATE jobs SET lease_until_ms = :now, lease_ms = 0
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms > CAST(:now AS BIGINT) + 60000
  AND lease_until_ms - lease_ms > CAST(:now AS BIGINT) + 60000;

-- times_fix_named_leases: nobody holds them.
DELETE FROM leases WHERE until_ms - COALESCE(lease_ms, 3600000) > CAST(:now AS BIGINT) + 60000;

-- times_fix_overlaps: they are over.
UPDATE tokens SET ended_ms = :now
WHERE expires_ms - overlap_ms > CAST(:now AS BIGINT) + 60000 AND revoked_ms IS NULL AND ended_ms IS NULL;

-- times_fix_jobs: what happened has happened by now. An import compares records with updated_ms, so that stays for
-- jobs that are as they were imported.
UPDATE jobs
SET created_ms = CASE WHEN created_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE created_ms END,
    updated_ms = CASE WHEN updated_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE updated_ms END,
    started_ms = CASE WHEN started_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE started_ms END,
    last_event_ms = CASE WHEN last_event_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE last_event_ms END,
    finished_ms = CASE WHEN finished_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE finished_ms END
WHERE (created_ms > CAST(:now AS BIGINT) + 60000 OR updated_ms > CAST(:now AS BIGINT) + 60000
       OR started_ms > CAST(:now AS BIGINT) + 60000 OR last_event_ms > CAST(:now AS BIGINT) + 60000
       OR finished_ms > CAST(:now AS BIGINT) + 60000)
  AND NOT EXISTS (SELECT 1 FROM imports AS i WHERE i.job = jobs.id AND i.updated_ms = jobs.updated_ms);

-- times_fix_events: the same of events.
UPDATE events SET recorded_ms = :now WHERE recorded_ms > CAST(:now AS BIGINT) + 60000;

-- times_fix_subscriptions: the same of subscribers.
UPDATE subscriptions
SET created_ms = CASE WHEN created_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE created_ms END,
    last_event_ms = CASE WHEN last_event_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE last_event_ms END
WHERE created_ms > CAST(:now AS BIGINT) + 60000 OR last_event_ms > CAST(:now AS BIGINT) + 60000;

-- times_fix_verdicts: the same of counted refusals.
UPDATE verdict_counts SET last_ms = :now WHERE last_ms > CAST(:now AS BIGINT) + 60000;

-- times_fix_refusals: the same of recorded refusals.
UPDATE refusals SET recorded_ms = :now WHERE recorded_ms > CAST(:now AS BIGINT) + 60000;
