"""Test a Ctrl-C, a SIGTERM handler that raises and a soft time limit, at every step of a verb: this registry and all
other processes continue at once, and nothing acknowledged is lost."""

import gc
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from jobdb import Busy, Registry
from jobdb.engines.sql.statements import JOBS
from jobdb.engines.sqlite import open_files
from jobdb.errors import StaleAttempt
from tests.support.interrupts import Interrupted, interrupt_each_point
from tests.support.processes import LineProcess
from tests.support.threads import run_in_threads

_OTHER_PROGRAM = """
import sys
from jobdb import Registry
registry = Registry.open(sys.argv[1], busy_timeout_sec=1)
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(registry.publish(line.strip(), "progress").seq, flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


class ContendedRegistry:
    """A registry of this process and one of another, on one database, with a job to publish to."""

    def __init__(self, path: Path, durability: str) -> None:
        self.path = path
        self.durability = durability
        self.registry = self.open()
        self.job = self.registry.register(agent="a", prompt="p", timeout_sec=0, idle_timeout_sec=0).job_id
        self._other = LineProcess([sys.executable, "-c", _OTHER_PROGRAM, str(path)])
        self.acknowledged: list[int] = []
        assert self._other.read_line() == "ready"

    def open(self) -> Registry:
        return Registry.open(
            self.path, create=True, durability=self.durability, busy_timeout_sec=1, checkpoint_pages=20
        )

    def publish(self) -> None:
        self.acknowledged.append(self.registry.publish(self.job, "progress").seq)

    def check(self, where: str) -> None:
        """Publish in the other process first: an interrupted verb must not block it until this one's next verb."""
        answer = self._other.ask(self.job)
        assert answer.isdigit(), f"{where}: another process: {answer}"
        self.acknowledged.append(int(answer))
        self.publish()
        assert self.registry.get(self.job).last_seq >= self.acknowledged[-1], where
        assert self.acknowledged[-2:] == sorted(set(self.acknowledged[-2:])), where

    def finish(self) -> None:
        seqs = [event.seq for event in self.registry.events(self.job, limit=10_000)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert set(self.acknowledged) <= set(seqs)
        self.close()
        with self.open() as registry:
            assert registry.engine.store.integrity(full=True) == []  # type: ignore[attr-defined]

    def close(self) -> None:
        self.registry.close()
        self._other.close()


@pytest.fixture(params=["full", "normal", "delete"])
def contended(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ContendedRegistry]:
    path = tmp_path / "private" / "jobs.db"
    path.parent.mkdir(mode=0o700)
    if request.param == "delete":
        from jobdb.engines.sqlite.shared_mark import set_shared

        Registry.open(path, create=True).close()
        set_shared(path, True)
    made = ContendedRegistry(path, "normal" if request.param == "normal" else "full")
    yield made
    made.close()


def _renew_stale_attempt(contended: ContendedRegistry) -> None:
    with pytest.raises(StaleAttempt):
        contended.registry.renew(contended.job, attempt=7)


def _verbs(contended: ContendedRegistry) -> dict[str, Callable[[], object]]:
    registry = contended.registry
    return {
        "publish": contended.publish,
        "get": lambda: registry.get(contended.job),
        "claim": lambda: registry.claim(worker="w", agent="nobody"),
        "refused": lambda: _renew_stale_attempt(contended),
        "wait": lambda: registry.claim(worker="w", agent="nobody", wait_sec=0.002),
        "checkpoint": lambda: registry.engine.store.checkpoint(),  # type: ignore[attr-defined]
        "subscribe": lambda: next(registry.subscribe(contended.job, subscriber="s", start="beginning", timeout_sec=20)),
    }


VERBS = ["publish", "get", "claim", "refused", "wait", "checkpoint", "subscribe"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_interrupted_at_any_call_leaves_nothing_behind(contended: ContendedRegistry, verb: str) -> None:
    run = _verbs(contended)[verb]
    contended.publish()
    run()
    assert interrupt_each_point(run, contended.check, max_points=12 if verb == "subscribe" else 20) > 3
    contended.finish()


@pytest.mark.parametrize("verb", ["publish", "get", "refused"])
def test_a_verb_interrupted_at_any_step_leaves_nothing_behind(contended: ContendedRegistry, verb: str) -> None:
    run = _verbs(contended)[verb]
    contended.publish()
    run()
    assert interrupt_each_point(run, contended.check, max_points=20, opcodes=True) > 3
    contended.finish()


def test_opening_can_be_repeated_after_an_interrupt_at_any_point(contended: ContendedRegistry) -> None:
    def open_and_close() -> None:
        contended.open().close()

    open_and_close()
    assert interrupt_each_point(open_and_close, contended.check, max_points=25) > 3
    contended.registry.close()
    gc.collect()
    with open_files.exclusive_open(contended.path):
        pass  # and the file does not count as open for ever
    contended.registry = contended.open()
    contended.finish()


def test_closing_can_be_repeated_after_an_interrupt_at_any_point(contended: ContendedRegistry) -> None:
    registries: list[Registry] = []

    def close() -> None:
        registries[-1].close()

    def check(where: str) -> None:
        registries[-1].close()
        contended.check(where)
        registries.append(contended.open())
        registries[-1].get(contended.job)

    registries.append(contended.open())
    assert interrupt_each_point(close, check, max_points=25) > 3
    contended.registry.close()
    gc.collect()
    with open_files.exclusive_open(contended.path):
        pass  # a file that is closed is free for migrate and restore
    contended.registry = contended.open()
    contended.finish()


def test_a_storm_of_real_signals(contended: ContendedRegistry) -> None:
    rng = random.Random(20260619)

    def ring(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for number in range(30):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0005, 0.004))
                while True:
                    contended.publish()
                    contended.registry.get(contended.job)
            except Interrupted:
                pass
            contended.check(f"signal {number}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    contended.finish()


def _interrupt_in_exit(contended: ContendedRegistry) -> None:
    """Interrupt the first step of ``__exit__``: no jobdb code has run yet, and the traceback keeps the block alive."""

    def interrupt(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_name == "__exit__":
            sys.setprofile(None)
            raise Interrupted

    sys.setprofile(interrupt)
    try:
        contended.publish()
    finally:
        sys.setprofile(None)


def test_the_next_verb_recovers_while_the_exception_is_being_handled(contended: ContendedRegistry) -> None:
    try:
        _interrupt_in_exit(contended)
        pytest.fail("it was not cut off")
    except Interrupted:
        contended.publish()
        contended.check("in the handler")
    contended.finish()


def test_another_thread_recovers_from_an_interrupted_thread(contended: ContendedRegistry) -> None:
    kept: list[BaseException] = []

    def cut_off() -> None:
        try:
            _interrupt_in_exit(contended)
        except Interrupted as error:
            kept.append(error)  # as a future keeps it

    thread = threading.Thread(target=cut_off)
    thread.start()
    thread.join()
    assert kept
    contended.publish()
    contended.check("after the other thread's end")
    contended.finish()


def test_a_verb_in_a_signal_handler_is_refused_and_the_interrupted_verb_continues(contended: ContendedRegistry) -> None:
    messages: list[str] = []

    def handler(*_: object) -> None:
        with pytest.raises(Busy, match="signal handler") as refused:
            contended.publish()
        messages.append(str(refused.value))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with contended.registry.engine.store.write() as tx:
            signal.raise_signal(signal.SIGUSR1)
            assert messages
            tx.run(JOBS.put_setting, name="written", value="1")
    finally:
        signal.signal(signal.SIGUSR1, before)
    with contended.registry.engine.store.read() as tx:
        assert tx.one(JOBS.get_setting, name="written") == ("1",)
    contended.check("after the handler")
    contended.finish()


def test_interrupted_threads_that_wait_for_each_other_lose_nothing(contended: ContendedRegistry) -> None:
    assert run_in_threads([lambda: [contended.publish() for _ in range(40)]] * 6) == []
    contended.finish()
