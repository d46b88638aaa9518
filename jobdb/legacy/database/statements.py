"""The named statements of the import, the export and the drop-in module, from ``legacy.sql``.

Used by the import, the export and the drop-in module; calls only the engine's reader of statement files.
"""

from __future__ import annotations

from pathlib import Path

from ...engines.statements import Statement, StatementSet


class LegacyStatements(StatementSet):
    """The statements of ``legacy.sql``."""

    legacy_insert_job: Statement
    legacy_last_row_id: Statement
    legacy_new_row_ids: Statement
    legacy_update_job: Statement
    legacy_insert_spec: Statement
    legacy_update_spec: Statement
    legacy_upsert_token: Statement
    legacy_close_token: Statement
    legacy_raise_kid: Statement
    legacy_keys: Statement
    legacy_highest_attempt: Statement
    legacy_raise_attempt: Statement
    legacy_subscriptions: Statement
    legacy_insert_subscription: Statement
    legacy_raise_subscription: Statement
    legacy_delete_gaps: Statement
    legacy_insert_gap: Statement
    legacy_upsert_import: Statement
    legacy_delete_lines: Statement
    legacy_insert_line: Statement
    legacy_insert_event: Statement
    legacy_raise_seq: Statement
    legacy_digests: Statement
    legacy_payloads: Statement
    legacy_events: Statement
    legacy_lines: Statement
    legacy_job: Statement
    legacy_jobs: Statement
    legacy_new_job_rows: Statement
    legacy_page: Statement
    legacy_count_jobs: Statement
    legacy_set_status: Statement
    legacy_next_seq: Statement
    legacy_tombstones: Statement


LEGACY = LegacyStatements(Path(__file__).with_name("legacy.sql"))
