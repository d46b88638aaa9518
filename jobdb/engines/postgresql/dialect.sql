-- The dialect of PostgreSQL, which has concurrent writers. Statements replace those of the same name in sql/*.sql.

-- lock_jobs: lock jobs against other writers, in the order of their ids, and leave the writer's mark.
WITH locked AS (
    SELECT id FROM jobs WHERE job_id = ANY(:job_ids) ORDER BY id FOR NO KEY UPDATE
), marked AS (
    INSERT INTO writers (client, number, at_ms) VALUES (CAST(:client AS UUID), :number, jobdb_now_ms())
    ON CONFLICT (client) DO UPDATE SET number = excluded.number, at_ms = excluded.at_ms
)
SELECT jobdb_now_ms(), pg_current_xact_id()::XID::TEXT FROM (SELECT count(*) FROM locked) AS all_of_them;

-- now_ms: the server's clock, in Unix milliseconds.
SELECT jobdb_now_ms();

-- mark_writer: leave the writer's mark, by which a commit is recognized; no row if nothing was written.
INSERT INTO writers (client, number, at_ms)
SELECT CAST(:client AS UUID), :number, jobdb_now_ms() WHERE pg_current_xact_id_if_assigned() IS NOT NULL
ON CONFLICT (client) DO UPDATE SET number = excluded.number, at_ms = excluded.at_ms
RETURNING pg_current_xact_id()::XID::TEXT;

-- writer_is_active: true if a transaction has not ended yet. A standby may lag behind: true there, to ask again.
SELECT pg_is_in_recovery() OR
       EXISTS (SELECT 1 FROM pg_locks
               WHERE locktype = 'transactionid' AND granted AND transactionid::TEXT = CAST(:transaction AS TEXT));

-- last_commit: the number of the last transaction that a connection committed.
SELECT number FROM writers WHERE client = CAST(:client AS UUID);

-- delete_writers: delete the marks of closed connections, and those of processes that died long ago.
DELETE FROM writers WHERE client = ANY(CAST(:clients AS UUID[])) OR at_ms < jobdb_now_ms() - 86400000;

-- notify_commit: notify waiters, in a transaction of its own, which need not be durable.
SELECT set_config('synchronous_commit', 'off', true), pg_notify(jobdb_channel(), '');

-- channel: the channel on which writers notify.
SELECT jobdb_channel();

-- stable_event_id: the id up to which no further event can appear, and the last id that was allocated.
SELECT settled, newest FROM jobdb_settled_event();

-- database_place: the place of the tables.
SELECT jobdb_place();

-- sealing_key: locked, so that a rekey waits for transactions that seal.
SELECT value FROM settings WHERE name = :name FOR SHARE;

-- sealing_key_for_update: locked, so that transactions that seal wait for the rekey.
SELECT value FROM settings WHERE name = :name FOR UPDATE;

-- claim_blockers: the same; SQLite's names of indexes mean nothing here.
SELECT EXISTS (SELECT 1 FROM jobs WHERE status = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms <= :now)::INT,
       EXISTS (SELECT 1 FROM jobs
               WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms <= :now)::INT;

-- next_ready: the same; SQLite's names of indexes mean nothing here.
SELECT (SELECT min(not_before_ms) FROM jobs WHERE status = 'pending' AND not_before_ms IS NOT NULL),
       (SELECT min(lease_until_ms) FROM jobs WHERE status = 'running' AND lease_until_ms IS NOT NULL);

-- ready_due_jobs: jobs that another transaction has locked are skipped.
UPDATE jobs SET not_before_ms = NULL, delay_ms = NULL
WHERE id = ANY(ARRAY(SELECT id FROM jobs
                     WHERE status = 'pending' AND not_before_ms IS NOT NULL AND not_before_ms <= :now
                     ORDER BY not_before_ms LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED));

-- ready_void_delays: jobs that another transaction has locked are skipped.
UPDATE jobs SET not_before_ms = NULL, delay_ms = NULL
WHERE id = ANY(ARRAY(SELECT id FROM jobs
                     WHERE status = 'pending' AND not_before_ms IS NOT NULL
                       AND not_before_ms > CAST(:now AS BIGINT) + 60000
                       AND not_before_ms - delay_ms > CAST(:now AS BIGINT) + 60000
                     ORDER BY not_before_ms DESC LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED));

-- claim_next: jobs that another worker is claiming are skipped. As an array, the selection is made once.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id = ANY(ARRAY(
    SELECT id FROM jobs WHERE status = 'pending' AND not_before_ms IS NULL
    ORDER BY priority DESC, id LIMIT :count FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING id;

-- claim_next_by_agent: the same, among one agent's jobs.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id = ANY(ARRAY(
    SELECT id FROM jobs WHERE status = 'pending' AND not_before_ms IS NULL AND agent = :agent
    ORDER BY priority DESC, id LIMIT :count FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING id;

-- claim_next_by_session: the same, among the jobs of one agent session.
UPDATE jobs
SET status = 'running', attempt = attempt + 1, worker = :worker, lease_until_ms = :lease_until,
    lease_ms = CAST(:lease_until AS BIGINT) - :now, started_ms = :now, updated_ms = :now
WHERE id = ANY(ARRAY(
    SELECT id FROM jobs
    WHERE status = 'pending' AND not_before_ms IS NULL AND agent_session IS NOT NULL AND agent_session = :agent_session
      AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
    ORDER BY priority DESC, id LIMIT :count FOR NO KEY UPDATE SKIP LOCKED
))
RETURNING id;

-- expired_lease_of: locked, so that no renewal can follow this read.
SELECT job_id, id, strikes, worker, attempt, max_attempts, lease_until_ms FROM jobs
WHERE job_id = :job_id AND status = 'running' AND lease_until_ms IS NOT NULL
  AND (lease_until_ms <= :now OR (lease_until_ms > CAST(:now AS BIGINT) + 60000
                                  AND lease_until_ms - lease_ms > CAST(:now AS BIGINT) + 60000))
FOR NO KEY UPDATE;

-- expired_leases: locked, so that no renewal can follow this read before the job is reaped; jobs in use are skipped.
SELECT job_id, id, strikes, worker, attempt, max_attempts FROM jobs
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms <= :now
ORDER BY lease_until_ms LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED;

-- void_leases: locked in the same way.
SELECT job_id, id, worker, attempt FROM jobs
WHERE status = 'running' AND lease_until_ms IS NOT NULL AND lease_until_ms > CAST(:now AS BIGINT) + 60000
  AND lease_until_ms - lease_ms > CAST(:now AS BIGINT) + 60000
ORDER BY lease_until_ms DESC LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED;

-- restart_limits: locked in the same way.
UPDATE jobs
SET started_ms = CASE WHEN COALESCE(started_ms, created_ms) > CAST(:now AS BIGINT) + 60000 THEN :now ELSE started_ms END,
    last_event_ms = CASE WHEN last_event_ms > CAST(:now AS BIGINT) + 60000 THEN :now ELSE last_event_ms END
WHERE id IN (SELECT id FROM jobs
             WHERE status = 'running'
               AND (COALESCE(started_ms, created_ms) > CAST(:now AS BIGINT) + 60000 OR last_event_ms > CAST(:now AS BIGINT) + 60000)
             ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED);

-- overdue_jobs: locked in the same way.
SELECT job_id, id, timeout_sec, idle_timeout_sec, began_ms, GREATEST(last_event_ms, answered_ms), attempt
FROM jobs CROSS JOIN LATERAL
    (SELECT CASE WHEN started_ms < created_ms AND created_ms <= :now THEN created_ms
                 ELSE COALESCE(started_ms, created_ms) END AS began_ms,
            (SELECT max(q.answered_ms) FROM questions AS q WHERE q.job = jobs.id) AS answered_ms) AS limits
WHERE status = 'running' AND (lease_until_ms IS NULL OR lease_until_ms > :now)
  AND ((timeout_sec > 0 AND began_ms + timeout_sec * 1000 <= :now)
       OR (idle_timeout_sec > 0 AND lease_until_ms IS NULL
           AND (COALESCE(last_event, '') <> 'permission_required'
                OR EXISTS (SELECT 1 FROM questions AS q
                           WHERE q.job = jobs.id AND q.seq = jobs.last_seq AND q.answer IS NOT NULL))
           AND NOT EXISTS (SELECT 1 FROM questions AS q
                           WHERE q.job = jobs.id AND q.answer IS NULL AND q.attempt = jobs.attempt)
           AND GREATEST(last_event_ms, began_ms, answered_ms) + idle_timeout_sec * 1000 <= :now))
ORDER BY id LIMIT :limit FOR NO KEY UPDATE OF jobs SKIP LOCKED;

-- prune_candidates: locked in the same way, also against new rows that refer to them.
SELECT id, job_id, kid,
       (SELECT t.kid FROM tokens AS t WHERE t.job = jobs.id AND t.remembered = 0 LIMIT 1) IS NOT NULL
FROM jobs
WHERE finished_ms < :before AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = jobs.id)
ORDER BY finished_ms LIMIT :limit FOR UPDATE SKIP LOCKED;

-- insert_refusal: checked first, because a conflict would use up an id, and the oldest are trimmed by id.
INSERT INTO refusals (job, subscriber, verdict, seq, recorded_ms, digest, reason, payload)
SELECT :job, :subscriber, :verdict, :seq, :now, :digest, :reason, :payload
WHERE NOT EXISTS (SELECT 1 FROM refusals
                  WHERE job = :job AND subscriber = :subscriber AND verdict = :verdict AND digest = :digest)
RETURNING id;

-- trim_refusals: refusals that another transaction has locked are left for the next time.
DELETE FROM refusals WHERE id IN (SELECT id FROM refusals WHERE id <= CAST(:newest AS BIGINT) - :keep FOR UPDATE SKIP LOCKED);

-- set_query_timeout: limit the time of an ad-hoc query, in this transaction.
SELECT set_config('statement_timeout', :timeout, true);

-- query_rule: an ad-hoc query as the server has parsed it: the rule of the temporary view created from it.
SELECT ev_action::TEXT FROM pg_rewrite WHERE ev_class = 'pg_temp.jobdb_query'::REGCLASS;

-- query_relations: the tables and views that it names, and whether each is in the schema of the registry.
SELECT c.relname::TEXT, c.relnamespace = v.relnamespace
FROM pg_class AS c, pg_class AS v
WHERE c.oid = ANY(CAST(:numbers AS OID[])) AND c.oid <> 'pg_temp.jobdb_query'::REGCLASS
  AND v.oid = to_regclass('v_jobs');

-- query_functions: the functions that it calls, whether each is built in, and its volatility.
SELECT p.proname::TEXT, p.pronamespace = 'pg_catalog'::REGNAMESPACE, p.provolatile::TEXT
FROM pg_proc AS p WHERE p.oid = ANY(CAST(:numbers AS OID[]));

-- copy_set_timeouts: otherwise the server ends a session that is idle in a transaction.
SELECT set_config('idle_in_transaction_session_timeout', '0', true);

-- copy_lock: readers continue; writers wait.
LOCK TABLE jobs, feeds, verdict_counts, settings IN EXCLUSIVE MODE;

-- copy_create_sequence: nothing to do, since the migrations create the sequences.
SELECT 1;

-- copy_advance_sequence: the sequences do not account for ids that were inserted explicitly.
SELECT setval('jobs_id_seq', COALESCE((SELECT max(id) FROM jobs), 0) + 1, false),
       setval('events_id_seq', GREATEST((SELECT max(id) FROM events), (SELECT max(event) FROM feeds),
                                        (SELECT max(start_event) FROM feeds), 0) + 1, false),
       setval('subscriptions_id_seq', COALESCE((SELECT max(id) FROM subscriptions), 0) + 1, false),
       setval('questions_id_seq', COALESCE((SELECT max(id) FROM questions), 0) + 1, false),
       setval('refusals_id_seq', COALESCE((SELECT max(id) FROM refusals), 0) + 1, false);

-- publish_states: the same; the ids are a JSON array.
SELECT j.id, j.status, j.last_seq, j.attempt, j.has_broker, j.kid, t.sealed, t.revoked_ms, j.worker,
       j.lease_until_ms, j.job_id
FROM jobs AS j LEFT JOIN tokens AS t ON t.job = j.id AND t.kid = j.kid
WHERE j.job_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(CAST(:job_ids AS TEXT) AS JSON))));

-- get_jobs_by_number: the same; the primary keys are a JSON array.
SELECT * FROM job_records
WHERE id = ANY(ARRAY(SELECT CAST(json_array_elements_text(CAST(CAST(:jobs AS TEXT) AS JSON)) AS BIGINT)))
ORDER BY priority DESC, id;

-- job_states: the status and attempt of several jobs; the ids are a JSON array.
SELECT job_id, status, attempt FROM jobs
WHERE job_id = ANY(ARRAY(SELECT json_array_elements_text(CAST(CAST(:job_ids AS TEXT) AS JSON))));

-- jobs_of_worker: locked, so that no renewal can follow this read; jobs in use are skipped.
SELECT j.job_id, j.id, j.strikes, j.worker, j.attempt, j.max_attempts
FROM jobs AS j CROSS JOIN LATERAL
    (SELECT worker_id FROM attempts WHERE job = j.id AND attempt = j.attempt LIMIT 1) AS a
WHERE j.status = 'running' AND j.lease_until_ms IS NOT NULL AND a.worker_id = :worker_id
  AND j.lease_until_ms - j.lease_ms < :renewed_before
ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED;

-- running_attempts: the same; LIMIT keeps the planner from reading all attempts of all times.
SELECT a.worker_id, j.job_id, j.attempt
FROM jobs AS j CROSS JOIN LATERAL
    (SELECT worker_id FROM attempts WHERE job = j.id AND attempt = j.attempt LIMIT 1) AS a
WHERE j.status = 'running' AND j.lease_until_ms IS NOT NULL ORDER BY j.id;
