"""Secrets: the vault that seals them, the master key, and the input of secrets.

Called by the registry, the engines, the import, the doctor and the command line; calls the file system and the rules in
``core/secrets.py``, never a database.
"""
