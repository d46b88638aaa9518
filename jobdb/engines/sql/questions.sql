-- Statements for the questions of agents and their answers.

-- question: one question of a job, by its key.
SELECT j.job_id, q.id, q.key, q.attempt, q.text, q.choices, q.seq, q.asked_ms, q.answer, q.message, q.answered_by,
       q.answered_ms, q.acknowledged
FROM questions AS q JOIN jobs AS j ON j.id = q.job
WHERE q.job = :job AND q.key = :key;

-- open_questions_of_job: a page of the questions of a job that can be answered, the oldest first.
SELECT j.job_id, q.id, q.key, q.attempt, q.text, q.choices, q.seq, q.asked_ms, q.answer, q.message, q.answered_by,
       q.answered_ms, q.acknowledged
FROM questions AS q JOIN jobs AS j ON j.id = q.job
WHERE q.job = :job AND q.answer IS NULL AND j.status IN ('pending', 'running') AND q.attempt = j.attempt
  AND q.id > :after
ORDER BY q.id LIMIT :limit;

-- unanswered_questions: the questions of a job that nobody has answered, whether that is still possible or not.
SELECT j.job_id, q.id, q.key, q.attempt, q.text, q.choices, q.seq, q.asked_ms, q.answer, q.message, q.answered_by,
       q.answered_ms, q.acknowledged
FROM questions AS q JOIN jobs AS j ON j.id = q.job
WHERE q.job = :job AND q.answer IS NULL ORDER BY q.id LIMIT :limit;

-- questions_of_job: a page of the questions of a job, the oldest first.
SELECT j.job_id, q.id, q.key, q.attempt, q.text, q.choices, q.seq, q.asked_ms, q.answer, q.message, q.answered_by,
       q.answered_ms, q.acknowledged
FROM questions AS q JOIN jobs AS j ON j.id = q.job
WHERE q.job = :job AND q.id > :after ORDER BY q.id LIMIT :limit;

-- open_questions: a page of the questions that can be answered, the oldest first.
SELECT j.job_id, q.id, q.key, q.attempt, q.text, q.choices, q.seq, q.asked_ms, q.answer, q.message, q.answered_by,
       q.answered_ms, q.acknowledged
FROM questions AS q CROSS JOIN jobs AS j  -- in this order: there are more jobs than open questions
WHERE j.id = q.job AND q.answer IS NULL AND j.status IN ('pending', 'running') AND q.attempt = j.attempt AND q.id > :after
ORDER BY q.id LIMIT :limit;

-- all_questions: a page of all questions, the oldest first.
SELECT j.job_id, q.id, q.key, q.attempt, q.text, q.choices, q.seq, q.asked_ms, q.answer, q.message, q.answered_by,
       q.answered_ms, q.acknowledged
FROM questions AS q JOIN jobs AS j ON j.id = q.job
WHERE q.id > :after ORDER BY q.id LIMIT :limit;

-- insert_question: record a question.
INSERT INTO questions (job, key, attempt, text, choices, seq, asked_ms)
VALUES (:job, :key, :attempt, :text, :choices, :seq, :now);

-- ask_again: record that an open question is asked by a later attempt.
UPDATE questions SET attempt = :attempt, seq = :seq, asked_ms = :now WHERE id = :question AND answer IS NULL;

-- answer_question: record the first answer to a question.
UPDATE questions SET answer = :answer, message = :message, answered_by = :by, answered_ms = :now
WHERE id = :question AND answer IS NULL;

-- acknowledge_answer: record the event by which the worker acknowledged an answer.
UPDATE questions SET acknowledged = :seq WHERE id = :question;

-- silence: whether a job waits for a person, and its last sign of life: the claim, an event or an answer.
SELECT EXISTS (SELECT 1 FROM questions AS q WHERE q.job = j.id AND q.answer IS NULL AND q.attempt = j.attempt)
           OR COALESCE(j.last_event, '') = 'permission_required'
              AND NOT EXISTS (SELECT 1 FROM questions AS q
                              WHERE q.job = j.id AND q.seq = j.last_seq AND q.answer IS NOT NULL),
       (SELECT max(times.ms)
        FROM (SELECT j.started_ms AS ms UNION ALL SELECT j.last_event_ms UNION ALL SELECT j.created_ms
              UNION ALL SELECT q.answered_ms FROM questions AS q WHERE q.job = j.id) AS times)
FROM jobs AS j WHERE j.job_id = :job_id;
