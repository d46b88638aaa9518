"""The PostgreSQL engine: a store over a pool of connections, and verbs that are retried if they were rolled back.

Called by ``engines/open.py`` for a ``postgresql://`` URL, and by the ``migrate`` command. The only package that uses
psycopg; knows nothing of SQLite.
"""
