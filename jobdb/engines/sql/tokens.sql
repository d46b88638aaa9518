-- Statements about tokens and sealed secrets.

-- sealing_key: the master key that secrets are sealed under, for as long as the transaction lasts.
SELECT value FROM settings WHERE name = :name;

-- sealing_key_for_update: the same for who is about to change it: nobody seals meanwhile.
SELECT value FROM settings WHERE name = :name;

-- token_by_kid: one token of a job; kid 0 asks for the present one.
SELECT t.kid, t.sealed, t.revoked_ms, t.expires_ms
FROM jobs AS j JOIN tokens AS t ON t.job = j.id AND t.kid = CASE WHEN :kid = 0 THEN j.kid ELSE :kid END
WHERE j.job_id = :job_id;

-- list_tokens: a job's tokens without their secrets.
SELECT t.kid, t.created_ms, t.expires_ms, t.revoked_ms, t.imported, j.kid, t.overlap_ms, t.ended_ms, j.updated_ms
FROM jobs AS j JOIN tokens AS t ON t.job = j.id
WHERE j.job_id = :job_id ORDER BY t.kid;

-- highest_kid: the last version number given out.
SELECT COALESCE(max(kid), 0) FROM tokens WHERE job = :job;

-- set_kid: the current token of a job.
UPDATE jobs SET kid = :kid, updated_ms = :now WHERE id = :job;

-- expire_tokens: the older tokens stay valid for an overlap.
UPDATE tokens SET expires_ms = :until, overlap_ms = CAST(:until AS BIGINT) - :now
WHERE job = :job AND kid < :kid AND (expires_ms IS NULL OR expires_ms > :until);

-- end_overlap: notes it if a token's overlap is over, so that it stays over whatever becomes of the clock.
UPDATE tokens SET ended_ms = :now
WHERE job = :job AND kid = :kid AND ended_ms IS NULL AND expires_ms IS NOT NULL
  AND (expires_ms <= :now OR expires_ms - overlap_ms > CAST(:now AS BIGINT) + 60000
       OR expires_ms <= (SELECT j.updated_ms FROM jobs AS j WHERE j.id = :job));

-- revoke_token: at once.
UPDATE tokens SET revoked_ms = :now WHERE job = :job AND kid = :kid AND revoked_ms IS NULL;

-- sealed_tokens: every sealed token, from behind one.
SELECT j.job_id, t.job, t.kid, t.sealed FROM tokens AS t JOIN jobs AS j ON j.id = t.job
WHERE (t.job, t.kid) > (:after, :after_kid) ORDER BY t.job, t.kid LIMIT :limit;

-- sealed_tokens_of_job: the same for one job.
SELECT kid, sealed FROM tokens WHERE job = :job ORDER BY kid;

-- reseal_token: the same token under another master key.
UPDATE tokens SET sealed = :sealed WHERE job = :job AND kid = :kid;

-- sealed_passwords: every sealed broker password.
SELECT j.job_id, s.job, s.broker_password FROM specs AS s JOIN jobs AS j ON j.id = s.job
WHERE s.broker_password IS NOT NULL AND s.job > :after ORDER BY s.job LIMIT :limit;

-- reseal_password: the same password under another master key.
UPDATE specs SET broker_password = :sealed WHERE job = :job;

-- token_fingerprints: which job ids a given token was used for.
SELECT job_id FROM token_fingerprints WHERE fingerprint = :fingerprint ORDER BY job_id = :job_id DESC, job_id LIMIT 1;

-- insert_fingerprint: a person gave this token for a job of this id.
INSERT INTO token_fingerprints (fingerprint, job_id) VALUES (:fingerprint, :job_id)
ON CONFLICT (fingerprint, job_id) DO NOTHING;

-- tombstone: what is known of a pruned job of this id.
SELECT unremembered, pruned_ms FROM tombstones WHERE job_id = :job_id;

-- upsert_tombstone: a job of this id is pruned.
INSERT INTO tombstones (job_id, unremembered, pruned_ms)
VALUES (:job_id, :unremembered, :now)
ON CONFLICT (job_id) DO UPDATE
SET unremembered = CASE WHEN excluded.unremembered = 1 THEN 1 ELSE tombstones.unremembered END,
    pruned_ms = excluded.pruned_ms;
