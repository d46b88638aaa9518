-- Statements for workers and the attempts that they make.

-- put_worker: record a worker, or that it is as described now.
INSERT INTO workers (worker_id, name, agent, host, machine, boot_id, pid_namespace, pid, pid_started, slots, log_dir,
                     lease_ms, started_ms, heartbeat_ms)
VALUES (:worker_id, :name, :agent, :host, :machine, :boot_id, :pid_namespace, :pid, :pid_started, :slots, :log_dir,
        :lease_ms, :now, :now)
ON CONFLICT (worker_id) DO UPDATE
SET name = excluded.name, agent = excluded.agent, host = excluded.host, machine = excluded.machine,
    boot_id = excluded.boot_id, pid_namespace = excluded.pid_namespace, pid = excluded.pid,
    pid_started = excluded.pid_started, slots = excluded.slots, log_dir = excluded.log_dir,
    lease_ms = excluded.lease_ms, heartbeat_ms = excluded.heartbeat_ms;

-- heartbeat: record that a worker is alive.
UPDATE workers SET heartbeat_ms = :now WHERE worker_id = :worker_id;

-- delete_worker: delete a worker's row; its attempts stay.
DELETE FROM workers WHERE worker_id = :worker_id;

-- delete_silent_workers: delete the rows of workers without a heartbeat since a time.
DELETE FROM workers WHERE heartbeat_ms < :before;

-- list_workers: all workers, the longest running first.
SELECT worker_id, name, agent, host, machine, boot_id, pid_namespace, pid, pid_started, slots, log_dir, lease_ms,
       started_ms, heartbeat_ms
FROM workers ORDER BY started_ms, worker_id;

-- workers_before_reboot: the workers of a host that ran before its current boot.
SELECT worker_id FROM workers
WHERE host = :host AND machine = :machine AND boot_id <> :boot_id AND boot_id <> '' ORDER BY worker_id;

-- running_attempts: the running jobs of all workers.
SELECT a.worker_id, j.job_id, j.attempt
FROM jobs AS j JOIN attempts AS a ON a.job = j.id AND a.attempt = j.attempt
WHERE j.status = 'running' AND j.lease_until_ms IS NOT NULL ORDER BY j.id;

-- jobs_of_worker: the running jobs of one worker whose leases were granted before a time.
SELECT j.job_id, j.id, j.strikes, j.worker, j.attempt, j.max_attempts
FROM jobs AS j JOIN attempts AS a ON a.job = j.id AND a.attempt = j.attempt
WHERE j.status = 'running' AND j.lease_until_ms IS NOT NULL AND a.worker_id = :worker_id
  AND j.lease_until_ms - j.lease_ms < :renewed_before
ORDER BY j.id;

-- insert_attempt: record which worker makes an attempt.
INSERT INTO attempts (job, attempt, worker, worker_id, host, log, started_ms)
VALUES (:job, :attempt, :worker, :worker_id, :host, :log, :now)
ON CONFLICT (job, attempt) DO NOTHING;

-- worker_host: the host of a worker.
SELECT host FROM workers WHERE worker_id = :worker_id;

-- list_attempts: the recorded attempts of a job, in order.
SELECT attempt, worker, worker_id, host, log, started_ms FROM attempts WHERE job = :job ORDER BY attempt;
