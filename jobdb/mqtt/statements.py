"""The named statements of this package, each set from its .sql file.

Used by the outbox, the tickets and the subscriber. A ticket's own database has its statements in ``ticket_store``.
"""

from __future__ import annotations

from pathlib import Path

from ..engines.statements import Statement, StatementSet


class OutboxStatements(StatementSet):
    """The statements of ``outbox.sql``: a registry's outbox, as the relay reads it."""

    undelivered_jobs: Statement
    undelivered_job: Statement
    undelivered_events: Statement
    count_undelivered_of_job: Statement
    job_instance: Statement


class SubscriberStatements(StatementSet):
    """The statements of ``subscriber.sql``, for a subscriber over a broker."""

    subscriber_cursor: Statement
    recorded_between: Statement
    recorded_digest: Statement
    recorded_digests: Statement
    accepted_unhandled: Statement
    recorded_after: Statement
    overdue_event: Statement
    cancelled_since: Statement
    live_topics: Statement
    brokers_of_live_jobs: Statement


OUTBOX = OutboxStatements(Path(__file__).with_name("outbox.sql"))
SUBSCRIBER = SubscriberStatements(Path(__file__).with_name("subscriber.sql"))
