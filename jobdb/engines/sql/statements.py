"""The statements of the verbs, for every database; ``postgresql/dialect.sql`` holds those that differ on PostgreSQL.

Used by the verbs, by both stores when they are opened, and by copy, statistics, import and identity. Declares names
only, and executes nothing.
"""

from __future__ import annotations

from pathlib import Path

from ..statements import Statement, StatementSet


class JobStatements(StatementSet):
    """The statements of ``jobs.sql``."""

    insert_job: Statement
    insert_spec: Statement
    insert_token: Statement
    job_by_idempotency_key: Statement
    get_job: Statement
    get_job_by_number: Statement
    get_jobs_by_number: Statement
    job_number: Statement
    list_jobs: Statement
    list_jobs_by_status: Statement
    list_jobs_by_agent: Statement
    job_state: Statement
    job_states: Statement
    cancel_job: Statement
    prune_candidates: Statement
    delete_job: Statement
    delete_verdict_counts: Statement
    count_by_status: Statement
    get_setting: Statement
    insert_setting: Statement
    put_setting: Statement


class ClaimStatements(StatementSet):
    """The statements of ``claims.sql``."""

    claim_blockers: Statement
    next_ready: Statement
    ready_due_jobs: Statement
    ready_void_delays: Statement
    claim_next: Statement
    claim_next_by_agent: Statement
    claim_next_by_session: Statement
    claim_job: Statement
    expired_lease_of: Statement
    renew_lease: Statement
    give_back: Statement
    expired_leases: Statement
    void_leases: Statement
    restart_limits: Statement
    overdue_jobs: Statement
    end_job: Statement


class WorkerStatements(StatementSet):
    """The statements of ``workers.sql``."""

    put_worker: Statement
    heartbeat: Statement
    delete_worker: Statement
    delete_silent_workers: Statement
    list_workers: Statement
    workers_before_reboot: Statement
    running_attempts: Statement
    jobs_of_worker: Statement
    insert_attempt: Statement
    worker_host: Statement
    list_attempts: Statement


class QuestionStatements(StatementSet):
    """The statements of ``questions.sql``."""

    question: Statement
    open_questions_of_job: Statement
    unanswered_questions: Statement
    questions_of_job: Statement
    open_questions: Statement
    all_questions: Statement
    insert_question: Statement
    ask_again: Statement
    answer_question: Statement
    acknowledge_answer: Statement
    silence: Statement


class LeaseStatements(StatementSet):
    """The statements of ``leases.sql``."""

    acquire_lease: Statement
    release_lease: Statement


class EventStatements(StatementSet):
    """The statements of ``events.sql``."""

    publish_state: Statement
    publish_states: Statement
    insert_event: Statement
    insert_delivery: Statement
    advance_job: Statement
    advance_job_if_unchanged: Statement
    start_job: Statement
    finish_job: Statement
    list_events: Statement


class OutboxStatements(StatementSet):
    """The statements of ``outbox.sql``."""

    outbox_page: Statement
    outbox_page_of_job: Statement
    mark_delivered: Statement
    count_outbox: Statement
    broker_of_job: Statement


class AcceptStatements(StatementSet):
    """The statements of ``accept.sql``."""

    accept_state: Statement
    sender_credentials: Statement
    stored_event: Statement
    insert_subscription: Statement
    advance_subscription: Statement
    rewind_handled: Statement
    insert_gap: Statement
    gap_containing_seq: Statement
    delete_gap: Statement
    add_verdict_count: Statement
    insert_refusal: Statement
    trim_refusals_of_job: Statement
    trim_refusals: Statement
    list_refusals: Statement
    verdict_totals: Statement
    verdict_counts_of_job: Statement


class SubscriptionStatements(StatementSet):
    """The statements of ``subscriptions.sql``."""

    follow_events: Statement
    follow_seqs: Statement
    subscription_state: Statement
    mark_handled: Statement
    list_subscriptions: Statement
    get_feed: Statement
    insert_feed: Statement
    advance_feed: Statement
    newest_event: Statement
    feed_page: Statement
    unhandled_jobs: Statement
    seq_at_event: Statement


class TokenStatements(StatementSet):
    """The statements of ``tokens.sql``."""

    sealing_key: Statement
    sealing_key_for_update: Statement
    token_by_kid: Statement
    list_tokens: Statement
    highest_kid: Statement
    set_kid: Statement
    expire_tokens: Statement
    end_overlap: Statement
    revoke_token: Statement
    sealed_tokens: Statement
    sealed_tokens_of_job: Statement
    reseal_token: Statement
    sealed_passwords: Statement
    reseal_password: Statement
    token_fingerprints: Statement
    insert_fingerprint: Statement
    tombstone: Statement
    upsert_tombstone: Statement


JOBS = JobStatements(Path(__file__).with_name("jobs.sql"))
CLAIMS = ClaimStatements(Path(__file__).with_name("claims.sql"))
WORKERS = WorkerStatements(Path(__file__).with_name("workers.sql"))
QUESTIONS = QuestionStatements(Path(__file__).with_name("questions.sql"))
LEASES = LeaseStatements(Path(__file__).with_name("leases.sql"))
EVENTS = EventStatements(Path(__file__).with_name("events.sql"))
OUTBOX = OutboxStatements(Path(__file__).with_name("outbox.sql"))
ACCEPT = AcceptStatements(Path(__file__).with_name("accept.sql"))
SUBSCRIPTIONS = SubscriptionStatements(Path(__file__).with_name("subscriptions.sql"))
TOKENS = TokenStatements(Path(__file__).with_name("tokens.sql"))

VERBS = (JOBS, CLAIMS, WORKERS, QUESTIONS, LEASES, EVENTS, OUTBOX, ACCEPT, SUBSCRIPTIONS, TOKENS)
"""All sets. They are read when a database is opened, so that no verb needs a file descriptor for its statements."""
