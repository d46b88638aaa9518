"""The probe: a test whether a folder is safe for a database with a rollback journal (`jobdb probe`)."""
