"""The export of the registry: to a folder for the old scripts, or as ndjson and csv. Begins in ``exporter.py``."""
