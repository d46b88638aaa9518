-- What restore asks of the database that is replaced (main) and of the one that comes in its place (restored).

-- revoked_since: tokens that are valid in the backup and were revoked, or rotated away, in the database since.
SELECT theirs.job, theirs.kid, now.revoked_ms, their_job.job_id
FROM restored.tokens AS theirs
JOIN restored.jobs AS their_job ON their_job.id = theirs.job
JOIN main.jobs AS job ON job.job_id = their_job.job_id AND job.created_ms = their_job.created_ms
JOIN main.tokens AS now ON now.job = job.id AND now.kid = theirs.kid AND now.created_ms = theirs.created_ms
WHERE theirs.revoked_ms IS NULL
    AND (now.revoked_ms IS NOT NULL
         OR (now.expires_ms IS NOT NULL AND (theirs.expires_ms IS NULL OR theirs.expires_ms > now.expires_ms)))
ORDER BY theirs.job, theirs.kid;

-- common_jobs: how many of the backup's jobs the database has, and how many it has no more.
SELECT count(job.id), count(*) - count(job.id)
FROM restored.jobs AS theirs
LEFT JOIN main.jobs AS job ON job.job_id = theirs.job_id AND job.created_ms = theirs.created_ms;

-- subscriptions_ahead: subscribers of single jobs that have accepted more than the backup knows of.
SELECT count(*)
FROM restored.subscriptions AS theirs
JOIN restored.jobs AS their_job ON their_job.id = theirs.job
JOIN main.jobs AS job ON job.job_id = their_job.job_id AND job.created_ms = their_job.created_ms
JOIN main.subscriptions AS now ON now.job = job.id AND now.subscriber = theirs.subscriber
WHERE now.last_seq > theirs.last_seq;

-- revoke_restored_token: makes a token of the restored registry invalid.
UPDATE tokens SET revoked_ms = ?3 WHERE job = ?1 AND kid = ?2 AND revoked_ms IS NULL;

-- put_restored_setting: notes a fact about the restored registry.
INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2);

-- delete_restored_place: where the saved registry lay, which this one does not.
DELETE FROM settings WHERE name = 'place';

-- delete_restored_leases: of relays and sweepers that worked on the saved registry; their ends may lie anywhere.
DELETE FROM leases;

-- delete_broker_identities: what brokers know the saved registry by.
DELETE FROM settings WHERE name IN ('identity', 'broker_identity');

-- is_marked_shared: whether several hosts use the database that is replaced.
SELECT 1 FROM main.settings WHERE name = 'shared' AND value = '1';

-- restored_key_id: the master key that the restored registry's secrets are sealed under.
SELECT value FROM settings WHERE name = 'key_id';
