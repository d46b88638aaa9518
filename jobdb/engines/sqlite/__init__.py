"""The SQLite engine: a store whose writers queue at a gate, share their syncs, and survive interrupts and forks.

Called by ``engines/open.py`` for a file, by the commands that create or upgrade one, and by the doctor and the
operations on files. Uses apsw, and for migrations the standard library's sqlite3; knows nothing of PostgreSQL.
"""
