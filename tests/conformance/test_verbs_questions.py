"""Test ask, questions, answer and wait_for_answer, on every engine."""

import asyncio
import threading

import pytest

from jobdb import (
    AlreadyAnswered,
    AttemptRequired,
    EventKind,
    IllegalTransition,
    InvalidInput,
    JobStatus,
    NewEvent,
    StaleAttempt,
    TimedOut,
    UnknownJob,
    UnknownQuestion,
)
from jobdb.operations.copy import copy_registry
from jobdb.operations.snapshot import snapshot
from jobdb.operations.stats import collect
from jobdb.registry.asynchronous import AsyncRegistry
from tests.support.keys import vault
from tests.support.verb_workers import VerbWorkers


@pytest.fixture
def held(registry, job):
    """The job, claimed under a lease as attempt 1."""
    registry.claim(worker="w", job_id=job.job_id, lease_sec=60)
    return job.job_id


def ask(registry, job_id, text="May I?", *, key="k", attempt=1, **more):
    return registry.ask(job_id, text, key=key, attempt=attempt, **more)


def kinds(registry, job_id):
    return [event.event.value for event in registry.events(job_id)]


def next_attempt(registry, job_id, attempt=1):
    registry.release(job_id, attempt=attempt)
    registry.claim(worker="w2", job_id=job_id, lease_sec=60)


# -- asking


def test_a_question_is_recorded_with_its_event(registry, clock, held):
    question = ask(registry, held, "May I delete build/?")
    (event,) = registry.events(held)
    assert (event.event, event.detail) == (EventKind.PERMISSION_REQUIRED, "May I delete build/?")
    assert event.data["question"] == {"key": "k", "choices": ["allow", "deny"]}
    assert (question.job_id, question.key, question.attempt, question.seq) == (held, "k", 1, event.seq)
    assert (question.choices, question.is_open, question.is_allowed) == (("allow", "deny"), True, False)
    assert question.asked_at.timestamp() * 1000 == clock.now_ms
    assert registry.questions() == registry.questions(job_id=held) == [question]


def test_a_refused_question_leaves_nothing(registry, held):
    registry.tokens.revoke(held, kid=1)
    with pytest.raises(Exception, match="revoked"):
        ask(registry, held)
    with pytest.raises(StaleAttempt):
        ask(registry, held, attempt=2)
    with pytest.raises(AttemptRequired, match="attempt 1"):
        ask(registry, held, attempt=None)
    with pytest.raises(UnknownJob):
        ask(registry, "nobody")
    assert registry.questions(open_only=False) == [] and registry.events(held) == []


def test_the_same_key_is_the_same_question_and_one_event(registry, held):
    first = ask(registry, held)
    assert ask(registry, held) == ask(registry, held, "Something else?", choices=["x"]) == first
    other = ask(registry, held, key="other")
    assert other.number > first.number and kinds(registry, held) == ["permission_required"] * 2
    registry.answer(held, "deny", by="ann", key="k")
    again = ask(registry, held)
    assert (again.answer, again.number) == ("deny", first.number) and len(registry.events(held)) == 2


def test_a_key_that_is_made_is_new(registry, held):
    ask(registry, held, key="q2")
    made = [ask(registry, held, key=None) for _ in range(3)]
    assert [question.key for question in made] == ["q2-2", "q3", "q4"]
    assert [event.data["question"]["key"] for event in registry.events(held)] == ["q2", "q2-2", "q3", "q4"]


def test_the_same_key_of_another_job_is_another_question(registry, held):
    registry.register(agent="a", prompt="", job_id="other")
    ask(registry, held)
    ask(registry, "other", attempt=None)
    registry.answer("other", "allow", by="ann")
    assert [question.job_id for question in registry.questions()] == [held]


def test_a_job_without_a_lease_needs_no_attempt(registry, job):
    question = ask(registry, job.job_id, attempt=None)
    registry.answer(job.job_id, "allow", by="ann")
    assert registry.wait_for_answer(job.job_id, "k").is_allowed and question.attempt == 0
    assert kinds(registry, job.job_id) == ["permission_required", "progress"]


def test_an_ended_job_asks_nothing(registry, held):
    ask(registry, held)
    registry.cancel(held)
    with pytest.raises((IllegalTransition, StaleAttempt)):
        ask(registry, held)
    with pytest.raises(IllegalTransition):
        ask(registry, held, key="new")


# -- attempts


def test_a_later_attempt_adopts_an_open_question(registry, held):
    first = ask(registry, held, "May I?", choices=["yes", "no"])
    next_attempt(registry, held)
    assert registry.questions() == [] and registry.questions(open_only=False) == [first]
    with pytest.raises(StaleAttempt, match="belongs to attempt 1"):
        registry.answer(held, "yes", by="ann", key="k")
    with pytest.raises(StaleAttempt):
        registry.answer(held, "yes", by="ann")
    adopted = ask(registry, held, "Other words?", attempt=2)
    assert (adopted.number, adopted.attempt, adopted.seq) == (first.number, 2, 2)
    event = registry.events(held)[-1]
    assert (event.detail, event.data["question"]) == ("May I?", {"key": "k", "choices": ["yes", "no"]})
    assert registry.answer(held, "yes", by="ann").answered_by == "ann"


def test_a_later_attempt_finds_the_answer_under_the_key(registry, held):
    ask(registry, held)
    registry.answer(held, "allow", by="ann", message="go on")
    next_attempt(registry, held)
    found = ask(registry, held, attempt=2)
    assert (found.answer, found.message, found.answered_by) == ("allow", "go on", "ann")
    assert kinds(registry, held) == ["permission_required"]
    assert registry.wait_for_answer(held, "k", attempt=2).is_allowed
    (_asked, acknowledged) = registry.events(held)
    assert (acknowledged.event, acknowledged.attempt) == (EventKind.PROGRESS, 2)


def test_a_question_survives_the_release_and_can_be_answered_meanwhile(registry, clock, held):
    ask(registry, held)
    clock.advance(61)
    assert [reaped.action for reaped in registry.reap()] == ["returned"]
    assert [question.key for question in registry.questions()] == ["k"]
    registry.answer(held, "deny", by="ann")
    claim = registry.claim(worker="w2", job_id=held, lease_sec=60)
    assert ask(registry, held, attempt=claim.attempt).answer == "deny"


def test_a_stale_attempt_neither_waits_nor_acknowledges(registry, held):
    ask(registry, held)
    next_attempt(registry, held)
    with pytest.raises(StaleAttempt, match="attempt 1"):
        registry.wait_for_answer(held, "k", attempt=1, timeout_sec=5)
    ask(registry, held, attempt=2)
    registry.answer(held, "allow", by="ann")
    with pytest.raises(StaleAttempt):
        registry.wait_for_answer(held, "k", attempt=1, timeout_sec=5)
    with pytest.raises(AttemptRequired):
        registry.wait_for_answer(held, "k", timeout_sec=5)
    with pytest.raises(StaleAttempt):
        ask(registry, held, attempt=1)
    assert "progress" not in kinds(registry, held)


# -- answering


def test_the_first_answer_is_final(registry, clock, held):
    ask(registry, held)
    answered = registry.answer(held, "deny", by="ann@host", message="keep it")
    assert (answered.answer, answered.answered_by, answered.message) == ("deny", "ann@host", "keep it")
    assert answered.answered_at.timestamp() * 1000 == clock.now_ms and not answered.is_allowed
    for text in ("allow", "deny"):
        with pytest.raises(AlreadyAnswered, match="'deny' by ann@host"):
            registry.answer(held, text, by="bob", key="k")
    assert registry.questions() == [] and registry.questions(open_only=False) == [answered]


def test_one_of_many_that_answer_at_once_wins(database, registry, held):
    ask(registry, held)
    told, won = [], []
    barrier = threading.Barrier(8)

    def answer(number):
        with database.open() as mine:
            barrier.wait(30)
            try:
                won.append(mine.answer(held, "allow" if number % 2 else "deny", by=f"p{number}"))
            except (AlreadyAnswered, UnknownQuestion) as error:
                told.append(error)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), len(told)) == (1, 7)
    (question,) = registry.questions(open_only=False)
    assert (question.answer, question.answered_by) == (won[0].answer, won[0].answered_by)


def test_two_processes_that_answer_at_once_one_wins_and_the_other_is_told(database, tmp_path):
    folder = tmp_path / "acks"
    folder.mkdir()
    rounds = 20
    with database.open() as registry:
        registry.register(agent="a", prompt="", job_id="j")
        for number in range(rounds):
            registry.ask("j", "May I?", key=f"k{number}")
        workers = VerbWorkers(folder, database.url)
        try:
            entries = workers.run(2, "answer_all", "j", rounds)
        finally:
            workers.kill()
        found = {question.key: question for question in registry.questions(job_id="j", open_only=False)}
    assert len(entries) == 2 * rounds
    for key, question in found.items():
        mine = [entry for entry in entries if entry["key"] == key]
        assert sorted(entry["won"] for entry in mine) == [False, True]
        (winner,) = (entry["by"] for entry in mine if entry["won"])
        assert question.answered_by == winner


def test_only_a_choice_is_an_answer(registry, held):
    ask(registry, held, choices=["main", "develop"])
    for text in ("allow", "Main", " main", "main,develop"):
        with pytest.raises(InvalidInput, match="main, develop"):
            registry.answer(held, text, by="ann")
    assert registry.answer(held, "develop", by="ann").answer == "develop"
    for wrong in (["a", "a"], [str(number) for number in range(65)]):
        with pytest.raises(InvalidInput, match="different"):
            ask(registry, held, key="wrong", choices=wrong)


@pytest.mark.parametrize("text", ["anything at all", "allow", "ü\n\t" * 1000, "\x01" * 16_384, "😀" * 16_384])
def test_any_text_answers_a_question_without_choices(registry, held, text):
    ask(registry, held, choices=[])
    registry.answer(held, text, by="ann")
    answered = registry.wait_for_answer(held, "k", attempt=1)
    assert answered.answer == text and answered.is_allowed == (text == "allow")
    assert registry.events(held)[-1].data["answer"] == {"key": "k", "answer": text, "by": "ann"}


def test_what_cannot_be_answered_is_refused(registry, held):
    with pytest.raises(UnknownQuestion, match="no open question"):
        registry.answer(held, "allow", by="ann")
    ask(registry, held)
    with pytest.raises(UnknownQuestion, match="'other'"):
        registry.answer(held, "allow", by="ann", key="other")
    with pytest.raises(UnknownJob):
        registry.answer("nobody", "allow", by="ann")
    ask(registry, held, key="second")
    with pytest.raises(InvalidInput, match="several open questions"):
        registry.answer(held, "allow", by="ann")
    registry.answer(held, "allow", by="ann", key="second")
    assert registry.answer(held, "allow", by="ann").key == "k"


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
def test_nobody_answers_after_the_end(registry, held, end):
    ask(registry, held)
    getattr(registry, end)(held, **({} if end == "cancel" else {"attempt": 1}))
    for key in ("k", None):
        with pytest.raises(IllegalTransition, match="has ended"):
            registry.answer(held, "allow", by="ann", key=key)
    with pytest.raises(IllegalTransition, match="has ended"):
        registry.wait_for_answer(held, "k", attempt=1, timeout_sec=5)
    assert registry.questions() == registry.questions(job_id=held) == []
    (question,) = registry.questions(open_only=False)
    assert question.is_open and not question.is_allowed


# -- waiting


def test_waiting_ends_with_the_answer_and_acknowledges_it_once(database, registry, held):
    ask(registry, held)

    def answer():
        with database.open() as mine:
            mine.answer(held, "allow", by="ann", message="go on")

    later = threading.Timer(0.2, answer)
    later.start()
    answered = registry.wait_for_answer(held, "k", attempt=1, timeout_sec=60)
    later.join()
    assert (answered.answer, answered.message) == ("allow", "go on")
    assert registry.wait_for_answer(held, "k", attempt=1) == answered
    event = registry.events(held)[-1]
    assert kinds(registry, held) == ["permission_required", "progress"]
    assert (event.detail, event.data["answer"]) == ("answered: allow", {"key": "k", "answer": "allow", "by": "ann"})


def test_waiting_ends_with_its_time(registry, held):
    ask(registry, held)
    with pytest.raises(TimedOut, match="stays open"):
        registry.wait_for_answer(held, "k", attempt=1, timeout_sec=0)
    assert registry.questions() != []
    with pytest.raises(UnknownQuestion):
        registry.wait_for_answer(held, "other", attempt=1)


@pytest.mark.parametrize("end", ["cancel", "release"])
def test_waiting_ends_with_the_claim(database, registry, held, end):
    ask(registry, held)

    def stop():
        with database.open() as mine:
            mine.cancel(held) if end == "cancel" else mine.release(held, attempt=1)

    later = threading.Timer(0.2, stop)
    later.start()
    with pytest.raises(IllegalTransition if end == "cancel" else StaleAttempt):
        registry.wait_for_answer(held, "k", attempt=1, timeout_sec=60)
    later.join()


def test_the_verbs_of_the_asyncio_face(database, job):
    async def main():
        async with AsyncRegistry.open(database.url, vault=vault()) as registry:
            question = await registry.ask(job.job_id, "May I?", key="k")
            waiting = asyncio.create_task(registry.wait_for_answer(job.job_id, "k", timeout_sec=60))
            assert [found.key for found in await registry.questions()] == [question.key]
            await registry.answer(job.job_id, "allow", by="ann")
            return await waiting

    assert asyncio.run(main()).is_allowed


# -- time limits


def idle_job(registry, *, lease_sec=None):
    job_id = registry.register(agent="a", prompt="", idle_timeout_sec=10).job_id
    registry.claim(worker="w", job_id=job_id, lease_sec=lease_sec)
    return job_id


def test_the_idle_clock_stands_still_while_a_question_is_open(registry, clock):
    job_id = idle_job(registry)
    ask(registry, job_id)
    registry.publish(job_id, "progress", detail="another tool meanwhile", attempt=1)
    clock.advance(3000)
    assert registry.reap() == [] and registry.engine.silent_sec(job_id) is None
    registry.answer(job_id, "allow", by="ann")
    clock.advance(9)
    assert registry.reap() == [] and registry.engine.silent_sec(job_id) == 9
    clock.advance(2)
    assert [(reaped.job_id, reaped.action) for reaped in registry.reap()] == [(job_id, "ended")]


def test_an_answered_question_protects_from_the_idle_limit_no_longer(registry, clock):
    job_id = idle_job(registry)
    ask(registry, job_id)
    clock.advance(3000)
    registry.answer(job_id, "allow", by="ann")
    clock.advance(9)
    assert registry.reap() == [] and registry.engine.silent_sec(job_id) == 9
    clock.advance(2)  # the agent is dead, or it would have acknowledged
    assert [reaped.action for reaped in registry.reap()] == ["ended"]


def test_the_question_of_an_earlier_attempt_protects_nobody(registry, clock):
    job_id = idle_job(registry)
    ask(registry, job_id)
    registry.release(job_id, attempt=1)
    registry.claim(worker="w", job_id=job_id, lease_sec=None)
    registry.publish(job_id, "progress", attempt=2)
    clock.advance(11)
    assert [reaped.action for reaped in registry.reap()] == ["ended"]


def test_a_permission_without_a_question_still_protects(registry, clock):
    job_id = idle_job(registry)
    registry.publish(job_id, "permission_required", attempt=1)
    clock.advance(3000)
    assert registry.reap() == [] and registry.engine.silent_sec(job_id) is None
    assert registry.engine.silent_sec("nobody") is None


def test_the_total_limit_counts_while_a_question_is_open(registry, clock):
    job_id = registry.register(agent="a", prompt="", timeout_sec=10).job_id
    registry.claim(worker="w", job_id=job_id, lease_sec=None)
    ask(registry, job_id)
    clock.advance(11)
    assert [reaped.action for reaped in registry.reap()] == ["ended"]


# -- lists


def test_pages_of_questions(registry, held):
    asked = [ask(registry, held, key=f"k{number}") for number in range(7)]
    registry.register(agent="a", prompt="", job_id="other")
    other = ask(registry, "other", attempt=None)
    registry.answer(held, "allow", by="ann", key="k0")
    for job_id, open_only, wanted in (
        (None, True, [*asked[1:], other]),
        (held, True, asked[1:]),
        (None, False, [*asked, other]),
        (held, False, asked),
        ("other", True, [other]),
    ):
        found, after = [], 0
        while page := registry.questions(job_id=job_id, open_only=open_only, after=after, limit=2):
            assert len(page) <= 2
            found += page
            after = page[-1].number
        assert [question.number for question in found] == [question.number for question in wanted]
    with pytest.raises(UnknownJob):
        registry.questions(job_id="nobody")


def test_a_question_as_json(registry, held):
    ask(registry, held)
    registry.answer(held, "deny", by="ann")
    (question,) = registry.questions(open_only=False)
    described = question.as_dict()
    assert described.pop("asked_at") == described.pop("answered_at") != ""
    assert described == {
        "job_id": held, "key": "k", "attempt": 1, "text": "May I?", "choices": ["allow", "deny"], "seq": 1,
        "answer": "deny", "message": "", "answered_by": "ann",
    }  # fmt: skip


def test_statistics_and_the_snapshot_count_what_can_be_answered(registry, clock, held):
    ask(registry, held)
    ask(registry, held, key="other")
    registry.register(agent="a", prompt="", job_id="ended")
    ask(registry, "ended", attempt=None)
    registry.cancel("ended")
    registry.publish(held, "progress", attempt=1)
    assert collect(registry).open_questions == 2
    (watched,) = snapshot(registry).jobs
    assert watched.awaits_permission and [question.key for question in watched.questions] == ["k", "other"]
    for key in ("k", "other"):
        registry.answer(held, "allow", by="ann", key=key)
    assert collect(registry).open_questions == 0
    assert not snapshot(registry).jobs[0].awaits_permission


# -- the end of everything


def test_pruning_a_job_takes_its_questions_along(registry, clock, held, job):
    ask(registry, held)
    registry.complete(held, attempt=1)
    clock.advance(100)
    assert registry.prune(older_than_sec=10) == [held]
    assert registry.questions(open_only=False) == []


def test_a_copy_has_the_questions(make_database, registry, held):
    ask(registry, held)
    ask(registry, held, key="answered")
    registry.answer(held, "deny", by="ann", key="answered", message="no")
    before = registry.questions(open_only=False)
    with make_database("sqlite-wal").open() as copied:
        copy_registry(registry, copied)
        assert copied.questions(open_only=False) == before
        copied.answer(held, "allow", by="ann", key="k")
        assert copied.ask(held, "And now?", choices=[], attempt=1).number > before[-1].number


def test_a_batch_of_a_worker_and_a_question_of_its_agent(registry, held):
    """The worker publishes the agent's lines while the agent asks through the database."""
    ask(registry, held)
    registry.publish_many([NewEvent(job_id=held, event="progress", attempt=1)])
    registry.answer(held, "allow", by="ann")
    assert registry.wait_for_answer(held, "k", attempt=1).is_allowed
    registry.complete(held, attempt=1)
    assert registry.get(held).status is JobStatus.COMPLETED
    assert kinds(registry, held) == ["permission_required", "progress", "progress", "completed"]


def test_an_answer_wakes_who_waits_for_it(database, registry, held):
    """Not only the next look, which may be a minute away."""
    ask(registry, held)
    with database.open() as other:
        seen = other.store.data_version()
        registry.answer(held, "allow", by="ann")
        assert other.store.wait_for_change(seen, 60) != seen
