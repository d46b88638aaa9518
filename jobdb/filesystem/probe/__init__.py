"""The probe: a test whether a folder is safe for a database with a rollback journal (`jobdb probe`).

Called by the command line, and by the SQLite engine before the first write to a folder that is not local; writes only
scratch files of its own and never touches a database.
"""
