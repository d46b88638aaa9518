"""The migrations and the JSON Schemas, as files.

Read by the engines, the doctor, backup and the web view. This module only finds the files and names the views; it
imports nothing from jobdb.

``sqlite/NNNN_name.sql`` and ``postgresql/NNNN_name.sql`` are the numbered migrations; the same number is the same step
on both engines. ``jobdb migrate`` runs them; for SQLite ``sqlite-utils migrate jobs.db schema/migrations.py`` does too.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent

APPLICATION_ID = 0x6A6F6264
"""SQLite's application_id of a jobdb database: "jobd" in ASCII."""


def migration_files(engine: str) -> list[tuple[int, str, Path]]:
    """Return (number, name, file) of each migration of ``engine`` ("sqlite" or "postgresql"), in order."""
    folder = FOLDER / engine
    migrations = []
    for file in sorted(os.listdir(folder)):
        number, _, name = file.removesuffix(".sql").partition("_")
        if file.endswith(".sql") and len(number) == 4 and number.isdecimal() and name:
            migrations.append((int(number), name, folder / file))
    return migrations


VIEWS = ("v_jobs", "v_events", "v_subscriptions", "v_refusals", "v_verdicts", "v_workers", "v_attempts", "v_questions")
"""The stable views, which ad hoc queries and the web view should read."""

SEALED_COLUMNS = frozenset({("tokens", "sealed"), ("specs", "broker_password")})
"""The table and column of each sealed secret, which no query may read."""

SCHEMA_VERSION = 7
"""The schema version of this version of jobdb: the number of the last migration, which a test compares."""
