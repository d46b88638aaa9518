-- Statements for named leases, for work that one process does at a time.
-- An end that is later than now plus its own length was computed while a clock was ahead: it is void (see claims.sql).

-- acquire_lease: acquire a named lease that is free, already ours, expired, or void.
INSERT INTO leases (name, holder, until_ms, lease_ms) VALUES (:name, :holder, :until_ms, CAST(:until_ms AS BIGINT) - :now)
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, until_ms = excluded.until_ms, lease_ms = excluded.lease_ms
WHERE leases.holder = excluded.holder OR leases.until_ms <= :now
   OR leases.until_ms - COALESCE(leases.lease_ms, 3600000) > CAST(:now AS BIGINT) + 60000;

-- release_lease: release a named lease.
DELETE FROM leases WHERE name = :name AND holder = :holder;
