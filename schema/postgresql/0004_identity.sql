-- Who a database is, which job ids and tokens were used before, and how long each lease was meant to last.

-- The registry's own id: a copy or a restored backup is another registry to brokers and tickets. Whoever makes one
-- replaces it. A restored backup of an older version has one already when it comes here.
DELETE FROM settings
WHERE name = 'identity' AND EXISTS (SELECT 1 FROM settings AS s WHERE s.name = 'registry_id');

INSERT INTO settings (name, value) VALUES ('registry_id', replace(gen_random_uuid()::TEXT, '-', ''))
ON CONFLICT (name) DO NOTHING;

-- What brokers know this database by keeps its sessions and what they hold, for as long as the registry id is this one.
UPDATE settings
SET name = 'broker_identity',
    value = (SELECT s.value FROM settings AS s WHERE s.name = 'registry_id') || ' ' || value
WHERE name = 'identity';

-- Where these tables lie. What pg_dump brings elsewhere has other numbers; a physical copy of the whole server has not.
CREATE FUNCTION jobdb_place() RETURNS TEXT LANGUAGE plpgsql STABLE
AS $$
DECLARE
    cluster TEXT := '';
BEGIN
    BEGIN
        SELECT system_identifier::TEXT INTO cluster FROM pg_control_system();
    EXCEPTION WHEN OTHERS THEN
        cluster := '';  -- it takes a right, and not every server that speaks this protocol has it
    END;
    RETURN json_build_object(
        'cluster', cluster,
        'database', COALESCE((SELECT oid::TEXT FROM pg_database WHERE datname = current_database()), ''),
        'table', COALESCE(to_regclass('settings')::OID::TEXT, ''))::TEXT;
END
$$;

INSERT INTO settings (name, value) VALUES ('place', jobdb_place()) ON CONFLICT (name) DO NOTHING;

-- Fingerprints (HMAC) of the tokens that people gave: no id has one a second time. Generated tokens bear a mark instead.
CREATE TABLE token_fingerprints (
    fingerprint BYTEA NOT NULL CHECK (length(fingerprint) = 16),
    job_id      TEXT  NOT NULL,
    PRIMARY KEY (fingerprint, job_id)
);

-- 1: it has a fingerprint or a mark. Not those of before this migration and of imports.
ALTER TABLE tokens ADD COLUMN remembered BIGINT NOT NULL DEFAULT 0 CHECK (remembered IN (0, 1));

-- Pruned jobs, but for those with a generated id whose tokens are remembered: a later job of the same id that is not
-- signed, or has a token that may be an old one, would take their events for its own.
CREATE TABLE tombstones (
    job_id       TEXT   PRIMARY KEY,
    unremembered BIGINT NOT NULL CHECK (unremembered IN (0, 1)),
    pruned_ms    BIGINT NOT NULL
);

-- How long a lease was meant to last: an end later than now plus this was computed while a clock was ahead.
ALTER TABLE jobs ADD COLUMN lease_ms BIGINT;

UPDATE jobs SET lease_ms = GREATEST(0, lease_until_ms - updated_ms) WHERE lease_until_ms IS NOT NULL;

DROP INDEX jobs_leased;

CREATE INDEX jobs_leased ON jobs (lease_until_ms, lease_ms) WHERE status = 'running' AND lease_until_ms IS NOT NULL;

ALTER TABLE leases ADD COLUMN lease_ms BIGINT;

-- The same for the overlap after a rotation.
ALTER TABLE tokens ADD COLUMN overlap_ms BIGINT;

-- When its overlap was first seen to be over. It is over from then on, also when the clock is set back.
ALTER TABLE tokens ADD COLUMN ended_ms BIGINT;

UPDATE tokens
SET overlap_ms = (SELECT GREATEST(0, tokens.expires_ms - n.created_ms) FROM tokens AS n
                  WHERE n.job = tokens.job AND n.kid > tokens.kid ORDER BY n.kid LIMIT 1)
WHERE expires_ms IS NOT NULL;
