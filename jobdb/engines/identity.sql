-- Statements about the identity of a registry and the place of its database.

-- identity_settings: the recorded identity and place.
SELECT name, value FROM settings WHERE name IN ('registry_id', 'place', 'broker_identity');

-- database_place: the current place, if the database knows it; SQLite does not.
SELECT NULL;

-- delete_setting: delete a fact about this database.
DELETE FROM settings WHERE name = :name;

-- delete_leases: delete all leases, since their holders belong to another registry.
DELETE FROM leases;
