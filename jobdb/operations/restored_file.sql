-- Statements that prepare a copied backup before it takes the database's name.

-- revoke_restored_token: revoke a token that the replaced database had revoked.
UPDATE tokens SET revoked_ms = ?3 WHERE job = ?1 AND kid = ?2 AND revoked_ms IS NULL;

-- put_restored_setting: record a fact about the restored registry.
INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2);

-- delete_restored_place: forget the place of the backup's registry; this one is elsewhere.
DELETE FROM settings WHERE name = 'place';

-- delete_restored_leases: end the leases of relays and reapers of the backup's registry.
DELETE FROM leases;

-- delete_broker_identities: forget the ids under which brokers know the backup's registry.
DELETE FROM settings WHERE name IN ('identity', 'broker_identity');

-- is_marked_shared: one row if the database that is replaced (main) is marked as shared by several hosts.
SELECT 1 FROM main.settings WHERE name = 'shared' AND value = '1';

-- restored_key_id: the id of the master key that the restored registry's secrets are sealed under.
SELECT value FROM settings WHERE name = 'key_id';
