-- Statements for migrations and the version of the schema.

-- reset_session: undo settings that other clients of a pooler left in the session, and make the commit durable.
SET LOCAL synchronous_commit TO on; SET LOCAL role TO DEFAULT; SET LOCAL search_path TO DEFAULT;

-- lock_migrations: allow one migration at a time in this schema; the lock is released with the transaction.
SELECT pg_advisory_xact_lock(hashtext('jobdb migrations of ' || current_schema()));

-- migrations_table_exists: true if the table of migrations exists.
SELECT to_regclass('jobdb_migrations') IS NOT NULL;

-- create_migrations: create the table of migrations.
CREATE TABLE jobdb_migrations (
    number     INTEGER PRIMARY KEY,
    name       TEXT        NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

-- schema_version: the number of the last applied migration.
SELECT COALESCE(max(number), 0) FROM jobdb_migrations;

-- can_read_views: true if the role may read the views; null if there are none.
SELECT has_table_privilege(to_regclass('v_jobs'), 'SELECT');

-- insert_migration: record that a migration was applied.
INSERT INTO jobdb_migrations (number, name) VALUES (:number, :name);
