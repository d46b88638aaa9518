-- Statements about which registry a database is and where it lies.

-- identity_settings: what is noted of it.
SELECT name, value FROM settings WHERE name IN ('registry_id', 'place', 'broker_identity');

-- database_place: where it is, as the database tells it; SQLite does not know.
SELECT NULL;

-- delete_setting: a fact that holds no more.
DELETE FROM settings WHERE name = :name;

-- delete_leases: who held them is another registry's.
DELETE FROM leases;
