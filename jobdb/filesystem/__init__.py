"""The file system that holds a database: mounts, placement policy, probe, permissions, file names and file locks.

Called by the SQLite engine, the master key, the operations, the import and export, and the doctor; calls the operating
system, never SQLite, and opens no database: that could drop the locks of an open connection.
"""
