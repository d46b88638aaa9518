-- Statements that compare the database to replace (main) with the backup that replaces it (restored).

-- revoked_since: tokens that are valid in the backup and were revoked, or rotated away, in the database since.
SELECT backup_token.job, backup_token.kid, current_token.revoked_ms, backup_job.job_id
FROM restored.tokens AS backup_token
JOIN restored.jobs AS backup_job ON backup_job.id = backup_token.job
JOIN main.jobs AS job ON job.job_id = backup_job.job_id AND job.created_ms = backup_job.created_ms
JOIN main.tokens AS current_token
    ON current_token.job = job.id AND current_token.kid = backup_token.kid
    AND current_token.created_ms = backup_token.created_ms
WHERE backup_token.revoked_ms IS NULL
    AND (current_token.revoked_ms IS NOT NULL
         OR (current_token.expires_ms IS NOT NULL
             AND (backup_token.expires_ms IS NULL OR backup_token.expires_ms > current_token.expires_ms)))
ORDER BY backup_token.job, backup_token.kid;

-- common_jobs: the number of the backup's jobs that the database still has, and of those that it no longer has.
SELECT count(job.id), count(*) - count(job.id)
FROM restored.jobs AS backup_job
LEFT JOIN main.jobs AS job ON job.job_id = backup_job.job_id AND job.created_ms = backup_job.created_ms;

-- subscriptions_ahead: the number of subscriptions to single jobs that are ahead of the backup.
SELECT count(*)
FROM restored.subscriptions AS backup_subscription
JOIN restored.jobs AS backup_job ON backup_job.id = backup_subscription.job
JOIN main.jobs AS job ON job.job_id = backup_job.job_id AND job.created_ms = backup_job.created_ms
JOIN main.subscriptions AS current_subscription
    ON current_subscription.job = job.id AND current_subscription.subscriber = backup_subscription.subscriber
WHERE current_subscription.last_seq > backup_subscription.last_seq;
