-- Who a database is, which job ids and tokens were used before, and how long each lease was meant to last.

-- The registry's own id: a copy or a restored backup is another registry to brokers and tickets. Whoever makes one
-- replaces it. A restored backup of an older version has one already when it comes here.
DELETE FROM settings
WHERE name = 'identity' AND EXISTS (SELECT 1 FROM settings AS s WHERE s.name = 'registry_id');

INSERT INTO settings (name, value) VALUES ('registry_id', lower(hex(randomblob(16)))) ON CONFLICT (name) DO NOTHING;

-- What brokers know this database by keeps its sessions and what they hold, for as long as the registry id is this one.
UPDATE settings
SET name = 'broker_identity',
    value = (SELECT s.value FROM settings AS s WHERE s.name = 'registry_id') || ' ' || value
WHERE name = 'identity';

-- Fingerprints (HMAC) of the tokens that people gave: no id has one a second time. Generated tokens bear a mark instead.
CREATE TABLE token_fingerprints (
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 16),
    job_id      TEXT NOT NULL,
    PRIMARY KEY (fingerprint, job_id)
) STRICT, WITHOUT ROWID;

-- 1: it has a fingerprint or a mark. Not those of before this migration and of imports.
ALTER TABLE tokens ADD COLUMN remembered INTEGER NOT NULL DEFAULT 0 CHECK (remembered IN (0, 1));

-- Pruned jobs, but for those with a generated id whose tokens are remembered: a later job of the same id that is not
-- signed, or has a token that may be an old one, would take their events for its own.
CREATE TABLE tombstones (
    job_id       TEXT    PRIMARY KEY,
    unremembered INTEGER NOT NULL CHECK (unremembered IN (0, 1)),
    pruned_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How long a lease was meant to last: an end later than now plus this was computed while a clock was ahead.
ALTER TABLE jobs ADD COLUMN lease_ms INTEGER;

UPDATE jobs SET lease_ms = max(0, lease_until_ms - updated_ms) WHERE lease_until_ms IS NOT NULL;

DROP INDEX jobs_leased;

CREATE INDEX jobs_leased ON jobs (lease_until_ms, lease_ms) WHERE status = 'running' AND lease_until_ms IS NOT NULL;

ALTER TABLE leases ADD COLUMN lease_ms INTEGER;

-- The same for the overlap after a rotation.
ALTER TABLE tokens ADD COLUMN overlap_ms INTEGER;

-- When its overlap was first seen to be over. It is over from then on, also when the clock is set back.
ALTER TABLE tokens ADD COLUMN ended_ms INTEGER;

UPDATE tokens
SET overlap_ms = (SELECT max(0, tokens.expires_ms - n.created_ms) FROM tokens AS n
                  WHERE n.job = tokens.job AND n.kid > tokens.kid ORDER BY n.kid LIMIT 1)
WHERE expires_ms IS NOT NULL;
