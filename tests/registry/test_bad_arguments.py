"""Test that a bad argument of a public verb raises `InvalidInput`, never another error, and that nothing is written."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobdb import Broker, Claim, GiveBack, InvalidInput, JobdbError, NewEvent, NewJob, Registry, WorkBatch
from jobdb.registry.tokens import Tokens
from tests.support.keys import vault
from tests.support.worker_records import worker_info

HUGE = 10**5000  # Python refuses to write it out
VAULT = vault()


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Name(str):
    """Text of another type, as from an enumeration or a library."""


NO_TEXT = [None, 5, b"bytes", ["a"], ("a",), {"a": 1}, True, 1.5, Unshowable(), HUGE, object]
BAD_TEXT = [*NO_TEXT, "nul\0", "\ud800"]
BAD_NAME = [*BAD_TEXT, "", "x" * 300]
BAD_ID = [*BAD_NAME, "a b", "-a", ".a", "a\n", "é", "a/b", "a;b", "a" * 129]
BAD_INT = ["5", "", b"5", 1.0, 1.5, math.nan, math.inf, True, False, -(10**9), 2**70, HUGE, -HUGE, [1], {}, Decimal(1)]
BAD_INT += [Unshowable(), "\0"]
BAD_SEC = [
    "5",
    b"5",
    math.nan,
    -math.inf,
    True,
    False,
    -1,
    -0.5,
    10**12,
    HUGE,
    -HUGE,
    [1],
    {},
    Decimal(1),
    Unshowable(),
]
BAD_LIST = ["out.txt", b"out.txt", bytearray(b"x"), {"out.txt": 1}, 5, True, 1.5, object(), Unshowable()]
BAD_OBJECT = [[], [("a", 1)], "", "{}", b"{}", 0, 5, False, True, 1.5, {"a": math.nan}, {(1,): 1}, {"a": object()}]
BAD_OBJECT += [{"a": {math.inf}}, {"a": "\ud800"}, {"\ud800": 1}, {"a": b"x"}, Unshowable()]


def optional(bad: list[Any]) -> list[Any]:
    return [value for value in bad if value is not None]


def new_job(registry: Registry, **fields: Any) -> Any:
    return registry.register_many([NewJob(**{"agent": "a", "prompt": "p", **fields})])


def batch(registry: Registry, **fields: Any) -> Any:
    return registry.work_batch(WorkBatch(**{"worker_id": "w1", "worker": "w", "claim": 1, "agent": "nobody", **fields}))


def claimed(registry: Registry) -> Claim:
    return Claim(registry.get("claimed"), 1, "w", None)


def give_back(registry: Registry, **fields: Any) -> Any:
    back = GiveBack(**{"job_id": "claimed", "attempt": 1, "reason": "", **fields})
    return batch(registry, give_back=(back,))


WORKER: dict[str, list[Any]] = {
    "worker_id": [*BAD_NAME, "x" * 65],
    "name": BAD_NAME,
    "agent": optional(BAD_NAME),
    "host": BAD_NAME,
    "machine": [*BAD_TEXT, "x" * 65],
    "boot_id": [*BAD_TEXT, "x" * 65],
    "pid_namespace": [*BAD_TEXT, "x" * 65],
    "pid": [*BAD_INT, None],
    "pid_started": [*BAD_INT, None],
    "slots": [*BAD_INT, None, 0],
    "log_dir": optional([*BAD_TEXT, "", "x" * 5000]),
    "lease_sec": [*BAD_SEC, None, 0, math.inf],
}
KEYS = [*BAD_LIST, None, ["j"], [("j",)], [("j", 1, 2)], [["j", 1]], [("a b", 1)], [("j", "1")], [("j", True)], [None]]
BATCH: dict[str, list[Any]] = {
    "worker_id": [*BAD_NAME, "x" * 65],
    "events": [*BAD_LIST, None, ["progress"], [NewEvent(job_id="j", event="progress")],  # type: ignore[arg-type]
               [NewEvent(job_id="a b", event="progress", attempt=1)], [None]],  # type: ignore[arg-type]
    "give_back": [*BAD_LIST, None, [("claimed", 1)], [None]],
    "renew": KEYS,
    "claim": [*BAD_INT, None],
    "worker": BAD_NAME,
    "agent": optional(BAD_NAME),
    "agent_session": optional(BAD_NAME),
    "lease_sec": [*BAD_SEC, None, 0, math.inf],
    "announce": [None, 0, 1, "yes"],
    "log_dir": optional([*BAD_TEXT, "", "x" * 5000]),
    "heartbeat": [None, 0, 1, "yes"],
}  # fmt: skip
GIVE_BACK: dict[str, list[Any]] = {
    "job_id": BAD_ID,
    "attempt": [*BAD_INT, None],
    "reason": [*BAD_TEXT, "x" * 65_537],
    "delay_sec": [*BAD_SEC, None, math.inf],
    "counts": [None, 0, 1, "yes"],
    "limit": [*BAD_INT, None, 0],
    "data": [[], [("a", 1)], "", "{}", b"{}", 0, 5, False, True, 1.5, None],
}


Verb = Callable[[Registry, Any], Any]
REGISTER: dict[str, list[Any]] = {
    "agent": BAD_NAME,
    "prompt": BAD_TEXT,
    "job_id": optional(BAD_ID),
    "agent_session": optional(BAD_NAME),
    "priority": [*BAD_INT, None],
    "topic_prefix": [*optional(BAD_TEXT), "", "/", "///", "a/+", "#", "$SYS/x", "x" * 1025],
    "broker": [*optional(NO_TEXT), "host", Broker("", 1), Broker("h", 0), Broker("h", True), Broker("h", "1883"),
               Broker("h", 1, "yes"), Broker("h", 1, False, 5), Broker(5), Broker("h", 1, False, "u", "no")],
    "broker_password": [*optional(NO_TEXT), "", "\0", "\ud800"],
    "timeout_sec": [*BAD_INT, None, -1],
    "idle_timeout_sec": [*BAD_INT, None, -1],
    "max_attempts": [*BAD_INT, 0, -1, 10**7],
    "expected_artifacts": [*BAD_LIST, ["a", 5], [None], [["a"]], ["/etc/passwd"], ["../x"], ["a/../b"], [""], ["a\0"],
                           [b"a"], [("a", "b")]],
    "extra": [*BAD_OBJECT, {"a": 10**6000}],
    "idempotency_key": optional(BAD_NAME),
    "auth": [*BAD_TEXT, "", "Required", "none"],
    "auth_token": [*optional(NO_TEXT), "", "short", "x" * 2000, "a b\n" * 10],
}  # fmt: skip
VERBS: dict[str, tuple[Verb, list[Any]]] = {
    **{
        f"register {name}": (lambda r, v, name=name: r.register(**{"agent": "a", "prompt": "p", name: v}), bad)
        for name, bad in REGISTER.items()
    },
    **{
        f"register_many {name}": (lambda r, v, name=name: new_job(r, **{name: v}), bad)
        for name, bad in REGISTER.items()
    },
    "register_many": (
        lambda r, v: r.register_many(v),
        [*BAD_LIST, None, [1], ["a"], [{"agent": "a", "prompt": "p"}], NewJob(agent="a", prompt="p"), [None]],
    ),
    "register_many after a good one": (
        lambda r, v: r.register_many([NewJob(agent="a", prompt="good", job_id="good"), v]),
        [None, 5, "a", NewJob(agent="", prompt="p"), NewJob(agent="a", prompt="p", timeout_sec=True)],
    ),
    "get": (lambda r, v: r.get(v), BAD_ID),
    "jobs status": (
        lambda r, v: r.jobs(status=v),
        ["nonsense", 5, True, None, {"pending": 1}, b"pending", ["x"], [None], [[]]],
    ),
    "jobs agent": (lambda r, v: r.jobs(agent=v), optional(BAD_NAME)),
    "jobs agent_session": (lambda r, v: r.jobs(agent_session=v), optional(BAD_NAME)),
    "jobs after": (lambda r, v: r.jobs(after=v), optional(BAD_ID)),
    "jobs limit": (lambda r, v: r.jobs(limit=v), [*BAD_INT, None, 0, 10_001]),
    "all_jobs status": (lambda r, v: list(r.all_jobs(status=v)), ["nonsense", 5, True, None, ["x"]]),
    "all_jobs agent": (lambda r, v: list(r.all_jobs(agent=v)), optional(BAD_NAME)),
    "all_jobs agent_session": (lambda r, v: list(r.all_jobs(agent_session=v)), optional(BAD_NAME)),
    "all_jobs after": (lambda r, v: list(r.all_jobs(after=v)), optional(BAD_ID)),
    "all_jobs page_size": (lambda r, v: list(r.all_jobs(page_size=v)), [*BAD_INT, None, 0]),
    "cancel": (lambda r, v: r.cancel(v), BAD_ID),
    "cancel reason": (lambda r, v: r.cancel("j", reason=v), [*BAD_TEXT, "x" * 1001]),
    "prune older_than_sec": (lambda r, v: r.prune(older_than_sec=v), [*BAD_SEC, None, math.inf]),
    "prune limit": (lambda r, v: r.prune(older_than_sec=0, limit=v), [*BAD_INT, None, 0]),
    "prune now_ms": (lambda r, v: r.prune(older_than_sec=0, now_ms=v), BAD_INT),
    "claim worker": (lambda r, v: r.claim(worker=v), BAD_NAME),
    "claim agent": (lambda r, v: r.claim(worker="w", agent=v), optional(BAD_NAME)),
    "claim agent_session": (lambda r, v: r.claim(worker="w", agent_session=v), optional(BAD_NAME)),
    "claim job_id": (lambda r, v: r.claim(worker="w", job_id=v), optional(BAD_ID)),
    "claim lease_sec": (lambda r, v: r.claim(worker="w", lease_sec=v), [*BAD_SEC, 0, math.inf]),
    "claim wait_sec": (lambda r, v: r.claim(worker="w", wait_sec=v), [*BAD_SEC, None, math.inf]),
    "renew": (lambda r, v: r.renew(v, attempt=1), BAD_ID),
    "renew attempt": (lambda r, v: r.renew("claimed", attempt=v), BAD_INT),
    "renew lease_sec": (lambda r, v: r.renew("claimed", attempt=1, lease_sec=v), [*BAD_SEC, None, 0, math.inf]),
    "release": (lambda r, v: r.release(v, attempt=1), BAD_ID),
    "release attempt": (lambda r, v: r.release("claimed", attempt=v), BAD_INT),
    "release delay_sec": (lambda r, v: r.release("claimed", attempt=1, delay_sec=v), [*BAD_SEC, None, math.inf]),
    "release reason": (lambda r, v: r.release("claimed", attempt=1, reason=v), optional([*BAD_TEXT, "x" * 65_537])),
    "work_batch": (lambda r, v: r.work_batch(v), [*BAD_OBJECT, None, {"worker_id": "w1"}, ["w1"]]),
    **{f"work_batch {name}": (lambda r, v, name=name: batch(r, **{name: v}), bad) for name, bad in BATCH.items()},
    **{
        f"work_batch give_back {name}": (lambda r, v, name=name: give_back(r, **{name: v}), bad)
        for name, bad in GIVE_BACK.items()
    },
    "claim_states": (lambda r, v: r.claim_states(v), KEYS),
    "working claim": (lambda r, v: r.working(v), [*BAD_OBJECT, None, ("j", 1)]),
    "working lease_sec": (lambda r, v: r.working(claimed(r), lease_sec=v), [*BAD_SEC, None, 0, math.inf]),
    "add_worker": (lambda r, v: r.add_worker(v), [*BAD_OBJECT, None]),
    **{
        f"add_worker {name}": (lambda r, v, name=name: r.add_worker(worker_info(**{"worker_id": "w1", name: v})), bad)
        for name, bad in WORKER.items()
    },
    "remove_worker": (lambda r, v: r.remove_worker(v), [*BAD_NAME, "x" * 65]),
    "attempts": (lambda r, v: r.attempts(v), BAD_ID),
    "return_jobs_of_dead_workers": (lambda r, v: r.return_jobs_of_dead_workers(v), [*BAD_OBJECT, None]),
    "return_jobs_of_dead_workers dead": (
        lambda r, v: r.return_jobs_of_dead_workers(worker_info("w1"), dead=v),
        [*BAD_LIST, None, [5], [None], [""], ["x" * 65]],
    ),
    "reap strike_limit": (lambda r, v: r.reap(strike_limit=v), [*BAD_INT, None, 0]),
    "reap limit": (lambda r, v: r.reap(limit=v), [*BAD_INT, None, 0]),
    "publish": (lambda r, v: r.publish(v, "progress"), BAD_ID),
    "publish event": (lambda r, v: r.publish("j", v), [*BAD_NAME, "nonsense"]),
    "publish detail": (lambda r, v: r.publish("j", "progress", detail=v), [*BAD_TEXT[:-2], "\ud800", "x" * 65_537]),
    "publish data": (lambda r, v: r.publish("j", "progress", data=v), [*BAD_OBJECT, {"a": 2**60}, {"a": HUGE}]),
    "publish attempt": (lambda r, v: r.publish("j", "progress", attempt=v), BAD_INT),
    "publish_many": (
        lambda r, v: r.publish_many(v),
        [*BAD_LIST, None, [1], [None], ["progress"], NewEvent(job_id="j", event="progress"), [{"job_id": "j"}]],
    ),
    "publish_many after a good one": (
        lambda r, v: r.publish_many([NewEvent(job_id="j", event="progress"), v]),
        [None, 5, NewEvent(job_id="a b", event="progress"), NewEvent(job_id="j", event="x")],
    ),
    "ask": (lambda r, v: r.ask(v, "May I?"), BAD_ID),
    "ask text": (lambda r, v: r.ask("j", v), [*BAD_TEXT, "", "x" * 65_537]),
    "ask key": (lambda r, v: r.ask("j", "May I?", key=v), optional([*BAD_NAME, "x" * 129])),
    "ask choices": (
        lambda r, v: r.ask("j", "May I?", choices=v),
        [*BAD_LIST, None, [1], [None], [""], ["a", "a"], ["x" * 257], [str(number) for number in range(65)], ["nul\0"]],
    ),
    "ask attempt": (lambda r, v: r.ask("j", "May I?", attempt=v), BAD_INT),
    "questions job_id": (lambda r, v: r.questions(job_id=v), optional(BAD_ID)),
    "questions open_only": (lambda r, v: r.questions(open_only=v), [None, 0, 1, "yes"]),
    "questions after": (lambda r, v: r.questions(after=v), [*BAD_INT, None]),
    "questions limit": (lambda r, v: r.questions(limit=v), [*BAD_INT, None, 0, 10_001]),
    "answer": (lambda r, v: r.answer(v, "allow", by="ann"), BAD_ID),
    "answer answer": (lambda r, v: r.answer("j", v, by="ann", key="open"), [*BAD_TEXT, "", "yes", "x" * 16_385]),
    "answer by": (lambda r, v: r.answer("j", "allow", by=v, key="open"), BAD_NAME),
    "answer key": (lambda r, v: r.answer("j", "allow", by="ann", key=v), optional([*BAD_NAME, "x" * 129, "other"])),
    "answer message": (lambda r, v: r.answer("j", "allow", by="ann", message=v), [*BAD_TEXT, "x" * 65_537]),
    "wait_for_answer": (lambda r, v: r.wait_for_answer(v, "open"), BAD_ID),
    "wait_for_answer key": (lambda r, v: r.wait_for_answer("j", v), [*BAD_NAME, "x" * 129, "other"]),
    "wait_for_answer attempt": (lambda r, v: r.wait_for_answer("j", "open", attempt=v), BAD_INT),
    "wait_for_answer timeout_sec": (lambda r, v: r.wait_for_answer("j", "open", timeout_sec=v), BAD_SEC),
    "complete": (lambda r, v: r.complete(v), BAD_ID),
    "complete detail": (lambda r, v: r.complete("j", detail=v), BAD_TEXT[:-2]),
    "complete attempt": (lambda r, v: r.complete("j", attempt=v), BAD_INT),
    "complete data": (lambda r, v: r.complete("j", data=v), BAD_OBJECT),
    "fail": (lambda r, v: r.fail(v), BAD_ID),
    "fail data": (lambda r, v: r.fail("j", data=v), BAD_OBJECT),
    "fail attempt": (lambda r, v: r.fail("j", attempt=v), BAD_INT),
    "fail detail": (lambda r, v: r.fail("j", detail=v), BAD_TEXT[:-2]),
    "events": (lambda r, v: r.events(v), BAD_ID),
    "events after": (lambda r, v: r.events("j", after=v), [*BAD_INT, None]),
    "events limit": (lambda r, v: r.events("j", limit=v), [*BAD_INT, None, 0]),
    "all_events": (lambda r, v: list(r.all_events(v)), BAD_ID),
    "all_events after": (lambda r, v: list(r.all_events("j", after=v)), [*BAD_INT, None]),
    "all_events page_size": (lambda r, v: list(r.all_events("j", page_size=v)), [*BAD_INT, None, 0]),
    "accept subscriber": (lambda r, v: r.accept(b"{}", subscriber=v), BAD_NAME),
    "accept window": (lambda r, v: r.accept(b"{}", subscriber="s", window=v), [*BAD_INT, None]),
    "accept start": (lambda r, v: r.accept(b"{}", subscriber="s", start=v), [*BAD_NAME, "end"]),
    "accept_many subscriber": (lambda r, v: r.accept_many([b"{}"], subscriber=v), BAD_NAME),
    "accept_many window": (lambda r, v: r.accept_many([b"{}"], subscriber="s", window=v), [*BAD_INT, None]),
    "accept_many start": (lambda r, v: r.accept_many([b"{}"], subscriber="s", start=v), [*BAD_NAME, "end"]),
    "accept_many": (lambda r, v: r.accept_many(v, subscriber="s"), [*BAD_LIST, None]),
    "subscribe": (lambda r, v: r.subscribe(v, subscriber="s"), optional(BAD_ID)),
    "subscribe subscriber": (lambda r, v: r.subscribe("j", subscriber=v), BAD_NAME),
    "subscribe start": (lambda r, v: r.subscribe("j", subscriber="s", start=v), [*BAD_NAME, "end"]),
    "subscribe timeout_sec": (lambda r, v: r.subscribe("j", subscriber="s", timeout_sec=v), BAD_SEC),
    "subscribe idle_timeout_sec": (lambda r, v: r.subscribe("j", subscriber="s", idle_timeout_sec=v), BAD_SEC),
    "subscriptions job_id": (lambda r, v: r.subscriptions(job_id=v), optional(BAD_ID)),
    "subscriptions subscriber": (lambda r, v: r.subscriptions(subscriber=v), optional(BAD_NAME)),
    "subscriptions limit": (lambda r, v: r.subscriptions(limit=v), [*BAD_INT, None, 0]),
    "refusals job_id": (lambda r, v: r.refusals(job_id=v), optional(BAD_ID)),
    "refusals after": (lambda r, v: r.refusals(after=v), BAD_INT),
    "refusals limit": (lambda r, v: r.refusals(limit=v), [*BAD_INT, None, 0]),
    "verdict_counts": (lambda r, v: r.verdict_counts(v), optional(BAD_ID)),
    "wait": (lambda r, v: r.wait(v), BAD_ID),
    "wait timeout_sec": (lambda r, v: r.wait("j", timeout_sec=v), BAD_SEC),
    "tokens show": (lambda r, v: r.tokens.show(v), BAD_ID),
    "tokens show kid": (lambda r, v: r.tokens.show("j", kid=v), [*BAD_INT, 0]),
    "tokens current": (lambda r, v: r.tokens.current(v), BAD_ID),
    "tokens list": (lambda r, v: r.tokens.list(v), BAD_ID),
    "tokens rotate": (lambda r, v: r.tokens.rotate(v), BAD_ID),
    "tokens rotate overlap_sec": (lambda r, v: r.tokens.rotate("j", overlap_sec=v), [*BAD_SEC, None, math.inf]),
    "tokens rotate token": (lambda r, v: r.tokens.rotate("j", token=v), [*optional(NO_TEXT), "", "short"]),
    "tokens revoke": (lambda r, v: r.tokens.revoke(v, 1), BAD_ID),
    "tokens revoke kid": (lambda r, v: r.tokens.revoke("j", v), [*BAD_INT, None, 0]),
    "tokens rekey": (lambda r, v: r.tokens.rekey(v), [None, 5, "key", b"k" * 32]),
    "open url": (
        lambda _, v: Registry.open(v, create=True),
        [5, b"jobs.db", ["x"], "", "ftp://x", "sqlite://", True, "a\0"],
    ),
    "open durability": (lambda r, v: Registry.open(r.url.text, durability=v), [*BAD_NAME, "none"]),
    "open busy_timeout_sec": (lambda r, v: Registry.open(r.url.text, busy_timeout_sec=v), [*BAD_SEC, None, 0]),
    "open create": (lambda r, v: Registry.open(r.url.text, create=v), ["no", 0, 1, None]),
    "open vault": (lambda r, v: Registry.open(r.url.text, vault=v), ["key", b"k" * 32, 5]),
    "open checkpoint_pages": (lambda r, v: Registry.open(r.url.text, checkpoint_pages=v), [*BAD_INT, None, 0]),
}  # fmt: skip

NO_BAD_VALUE = {
    "accept payload": "whatever it is, there is a verdict",
    "accept topic": "the same",
    "open clock": "called, not checked",
    "close checkpoint": "true or false of anything",
}


def test_every_argument_of_a_public_verb_is_tried() -> None:
    missing = []
    for group, prefix in ((Registry, ""), (Tokens, "tokens ")):
        for name, function in inspect.getmembers(group, inspect.isroutine):
            if not name.startswith("_"):
                given = [one for one in inspect.signature(function).parameters if one != "self"]
                wanted = [f"{prefix}{name} {one}" for one in given]
                if f"{prefix}{name}" in VERBS:
                    del wanted[0]  # a row without a parameter's name is about the first
                missing += [row for row in wanted if row not in VERBS and row not in NO_BAD_VALUE]
    assert missing == []


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with Registry.open(tmp_path_factory.mktemp("bad") / "jobs.db", create=True, vault=VAULT) as opened:
        opened.register(agent="a", prompt="p", job_id="j")
        opened.register(agent="a", prompt="p", job_id="claimed")
        opened.claim(worker="w", job_id="claimed")
        opened.publish("j", "progress")
        opened.ask("j", "May I?", key="open")
        opened.ask("j", "May I?", key="open, too")
        yield opened


def state(registry: Registry) -> list[Any]:
    """Return everything that a verb could have written."""
    jobs = [job.as_dict() for job in registry.all_jobs()]
    of_each = [(registry.events(job["job_id"]), registry.tokens.list(job["job_id"])) for job in jobs]
    attempts = [registry.attempts(job["job_id"]) for job in jobs]
    return [
        jobs,
        of_each,
        attempts,
        registry.questions(open_only=False),
        registry.workers(),
        registry.subscriptions(),
        registry.refusals(),
        registry.verdict_counts(),
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_a_bad_value_is_invalid_input_and_writes_nothing(registry: Registry, verb: str) -> None:
    call, bad = VERBS[verb]
    before = state(registry)
    for value in bad:
        try:
            call(registry, value)
        except InvalidInput as error:
            assert str(error) and "Traceback" not in str(error) and len(str(error)) < 600
        except BaseException as error:
            pytest.fail(f"{type(error).__name__} for a value of type {type(value).__name__}: {error!s:.300}")
        else:
            pytest.fail(f"{verb} took a value of type {type(value).__name__}")
    assert state(registry) == before


def test_a_subclass_of_str_is_stored_as_text(registry: Registry) -> None:
    job = registry.register(
        agent=Name("codex"), prompt=Name("p"), agent_session=Name("s"), expected_artifacts=(Name("a"),)
    )
    assert registry.get(Name(job.job_id)).agent == "codex" and type(job.agent) is str
    assert registry.register(agent="a", prompt="p", expected_artifacts=iter(["a", "b"])).expected_artifacts == (
        "a",
        "b",
    )


class LyingInt(int):
    """An integer whose comparisons claim that it is small."""

    def __le__(self, other: Any) -> bool:
        return True

    __ge__ = __lt__ = __gt__ = __le__


class BadInt(int):
    def __int__(self) -> int:
        raise RuntimeError("no number")


class Status(StrEnum):
    WAITING = "pending"
    JOB = "j"
    SAID = "progress"


def test_the_checked_value_is_stored_whatever_a_subclass_returns(registry: Registry) -> None:
    for call in (
        lambda value: registry.register(agent="a", prompt="p", priority=value),
        lambda value: registry.jobs(limit=value),
        lambda value: registry.prune(older_than_sec=1, limit=value),
        lambda value: registry.tokens.revoke("j", value),
    ):
        with pytest.raises(InvalidInput):
            call(LyingInt(10**30))
    assert type(registry.register(agent="a", prompt="p", priority=BadInt(3)).priority) is int
    assert registry.get(Status.JOB).job_id == "j"  # type: ignore[arg-type]
    event = registry.publish(Status.JOB, Status.SAID, detail=Name("x"))  # type: ignore[arg-type]
    assert (type(event.job_id), type(event.detail), event.event) == (str, str, "progress")
    assert all(job.status == "pending" for job in registry.jobs(status=Status.WAITING))


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20), st.decimals(),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.datetimes(), st.complex_numbers(), st.sets(st.text(max_size=2), max_size=2),
)  # fmt: skip


QUICK = sorted(verb for verb in VERBS if not verb.startswith(("open", "wait", "claim wait_sec")))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(verb=st.sampled_from(QUICK), value=ANYTHING)
def test_any_value_is_accepted_or_raises_a_jobdb_error(registry: Registry, verb: str, value: Any) -> None:
    with suppress(JobdbError):
        VERBS[verb][0](registry, value)
