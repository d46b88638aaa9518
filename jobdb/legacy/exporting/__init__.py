"""The export of the registry: to a folder for the old scripts, or as ndjson and csv. Begins in ``exporter.py``.

Called by the command line and by applications, through ``jobdb.legacy``; only reads the database.
"""
