"""Test the flag: it can be awaited, set from a signal handler, and interrupted at any step."""

import signal
import threading
import time

from jobdb.system.interrupt_safe_flag import Flag
from tests.support.interrupts import interrupt_each_point


def test_a_flag_behaves_like_an_event() -> None:
    flag = Flag()
    assert not flag.is_set() and not flag.wait(0.001)
    flag.set()
    flag.set()
    assert flag.is_set() and flag.wait(0) and flag.wait(30)
    flag.clear()
    flag.clear()
    assert not flag.is_set() and not flag.wait(0.001)


def test_setting_the_flag_wakes_all_waiters() -> None:
    flag = Flag()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(flag.wait(60))) for _ in range(5)]
    for thread in threads:
        thread.start()
    flag.set()
    for thread in threads:
        thread.join(30)
    assert woken == [True] * 5


def test_an_interrupted_flag_can_be_set_and_awaited_by_others() -> None:
    flag = Flag()

    def use() -> None:
        flag.wait(0.001)
        flag.set()
        flag.wait(1)
        flag.clear()

    def check(where: str) -> None:
        woken: list[bool] = []
        thread = threading.Thread(target=lambda: (flag.set(), woken.append(flag.wait(10)), flag.clear()))
        thread.start()
        thread.join(20)
        assert woken == [True], where
        flag.clear()

    assert interrupt_each_point(use, check, max_points=10_000, opcodes=True) > 3


def test_a_signal_handler_may_set_the_flag_while_its_thread_waits() -> None:
    flag = Flag()
    before = signal.signal(signal.SIGALRM, lambda *_: flag.set())
    try:
        for number in range(200):
            flag.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.00002 * (number % 20 + 1))
            began = time.monotonic()
            assert flag.wait(20)
            assert time.monotonic() - began < 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
