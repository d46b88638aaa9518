-- Statements for tokens and sealed secrets.

-- sealing_key: the id of the master key of all secrets; it does not change during the transaction.
SELECT value FROM settings WHERE name = :name;

-- sealing_key_for_update: the id of the master key, locked so that nobody seals until it is changed.
SELECT value FROM settings WHERE name = :name;

-- token_by_kid: one token of a job; kid 0 stands for the current one.
SELECT t.kid, t.sealed, t.revoked_ms, t.expires_ms
FROM jobs AS j JOIN tokens AS t ON t.job = j.id AND t.kid = CASE WHEN :kid = 0 THEN j.kid ELSE :kid END
WHERE j.job_id = :job_id;

-- list_tokens: a job's tokens, without the secrets.
SELECT t.kid, t.created_ms, t.expires_ms, t.revoked_ms, t.imported, j.kid, t.overlap_ms, t.ended_ms, j.updated_ms
FROM jobs AS j JOIN tokens AS t ON t.job = j.id
WHERE j.job_id = :job_id ORDER BY t.kid;

-- highest_kid: the highest version of a job's tokens.
SELECT COALESCE(max(kid), 0) FROM tokens WHERE job = :job;

-- set_kid: set the current token of a job.
UPDATE jobs SET kid = :kid, updated_ms = :now WHERE id = :job;

-- expire_tokens: let the older tokens of a job expire after the overlap.
UPDATE tokens SET expires_ms = :until, overlap_ms = CAST(:until AS BIGINT) - :now
WHERE job = :job AND kid < :kid AND (expires_ms IS NULL OR expires_ms > :until);

-- end_overlap: record that a token's overlap has ended, so that it stays ended whatever the clock says later.
UPDATE tokens SET ended_ms = :now
WHERE job = :job AND kid = :kid AND ended_ms IS NULL AND expires_ms IS NOT NULL
  AND (expires_ms <= :now OR expires_ms - overlap_ms > CAST(:now AS BIGINT) + 60000
       OR expires_ms <= (SELECT j.updated_ms FROM jobs AS j WHERE j.id = :job));

-- revoke_token: revoke a token immediately.
UPDATE tokens SET revoked_ms = :now WHERE job = :job AND kid = :kid AND revoked_ms IS NULL;

-- sealed_tokens: a page of all sealed tokens.
SELECT j.job_id, t.job, t.kid, t.sealed FROM tokens AS t JOIN jobs AS j ON j.id = t.job
WHERE (t.job, t.kid) > (:after, :after_kid) ORDER BY t.job, t.kid LIMIT :limit;

-- sealed_tokens_of_job: the sealed tokens of one job.
SELECT kid, sealed FROM tokens WHERE job = :job ORDER BY kid;

-- reseal_token: store a token that was sealed under another master key.
UPDATE tokens SET sealed = :sealed WHERE job = :job AND kid = :kid;

-- sealed_passwords: a page of all sealed broker passwords.
SELECT j.job_id, s.job, s.broker_password FROM specs AS s JOIN jobs AS j ON j.id = s.job
WHERE s.broker_password IS NOT NULL AND s.job > :after ORDER BY s.job LIMIT :limit;

-- reseal_password: store a broker password that was sealed under another master key.
UPDATE specs SET broker_password = :sealed WHERE job = :job;

-- token_fingerprints: a job id for which a given token was used, preferably this one.
SELECT job_id FROM token_fingerprints WHERE fingerprint = :fingerprint ORDER BY job_id = :job_id DESC, job_id LIMIT 1;

-- insert_fingerprint: record that a token was given for a job id.
INSERT INTO token_fingerprints (fingerprint, job_id) VALUES (:fingerprint, :job_id)
ON CONFLICT (fingerprint, job_id) DO NOTHING;

-- tombstone: the tombstone of a pruned job.
SELECT unremembered, pruned_ms FROM tombstones WHERE job_id = :job_id;

-- upsert_tombstone: record that a job with this id was pruned.
INSERT INTO tombstones (job_id, unremembered, pruned_ms)
VALUES (:job_id, :unremembered, :now)
ON CONFLICT (job_id) DO UPDATE
SET unremembered = CASE WHEN excluded.unremembered = 1 THEN 1 ELSE tombstones.unremembered END,
    pruned_ms = excluded.pruned_ms;
