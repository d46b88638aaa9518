"""Test that a payload is parsed once and verified once on its way from the broker to the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from jobdb import EventKind, Registry
from jobdb.core import authenticity
from jobdb.core.protocol import build
from jobdb.engines.sql import precheck
from jobdb.errors import Busy
from jobdb.mqtt import BrokerSettings
from jobdb.mqtt.connection import Connection, Message
from jobdb.mqtt.consumer import BrokerConsumer
from tests.support.keys import vault


class Counted:
    """Counts of parsed payloads and verified signatures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parsed = self.verified = 0
        parse, verify = precheck.parse, authenticity.verify

        def counted_parse(payload: Any) -> Any:
            self.parsed += 1
            return parse(payload)

        def counted_verify(*arguments: Any, **options: Any) -> bool:
            self.verified += 1
            return verify(*arguments, **options)

        monkeypatch.setattr(precheck, "parse", counted_parse)
        monkeypatch.setattr(authenticity, "verify", counted_verify)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "jobs.db", create=True, vault=vault()) as opened:
        yield opened


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def consume(registry: Registry, reports: list[str]) -> Callable[..., BrokerConsumer]:
    """Create a consumer whose thread does not run, with messages in its inbox."""

    def make(*payloads: str, topic: str = "jobdb/jobs/ours/events", **options: Any) -> BrokerConsumer:
        registry.engine.open_feed("watcher", start="beginning")
        consumer = BrokerConsumer(
            registry.engine,
            subscriber="watcher",
            settings=BrokerSettings("127.0.0.1", 1),
            client_id="c",
            filters=["jobdb/jobs/+/events"],
            start="beginning",
            **{"job_id": None, "window": 0, "session_sec": 1, "grace_sec": 600.0, "report": reports.append, **options},
        )
        for mid, payload in enumerate(payloads):
            # At QoS 0 there is nothing to acknowledge, so no connection is needed.
            consumer._inbox.put(Message(cast("Connection", None), mid, topic, payload.encode(), False, 0))
        return consumer

    return make


def line(registry: Registry, seq: int, *, detail: str = "", token: str | None = None) -> str:
    return build(
        job_id="ours",
        seq=seq,
        event=EventKind.PROGRESS,
        timestamp="2026-06-19T09:32:00Z",
        detail=detail,
        data={},
        attempt=None,
        kid=1,
        token=token or registry.tokens.show("ours"),
    ).text


def last_seq(registry: Registry) -> int:
    return registry.subscriptions(subscriber="watcher")[0].last_seq


@pytest.mark.parametrize("size", [0, 40_000], ids=["small", "large"])
def test_each_message_is_parsed_and_verified_once(
    registry: Registry, counted: Counted, consume: Callable[..., BrokerConsumer], size: int
) -> None:
    """A large batch is verified before the lock, a small one under it; both in order and out of order."""
    registry.register(agent="a", prompt="", job_id="ours")
    lines = [line(registry, seq, detail="x" * size) for seq in (1, 2, 5, 4, 9)]
    consume(*lines)._accept_waiting()
    assert last_seq(registry) == 9
    assert (counted.parsed, counted.verified) == (5, 5)


def test_a_forged_message_out_of_order_is_verified_once_and_changes_nothing(
    registry: Registry, counted: Counted, consume: Callable[..., BrokerConsumer], reports: list[str]
) -> None:
    registry.register(agent="a", prompt="", job_id="ours")
    consume(line(registry, 7, token="f" * 32), line(registry, 1))._accept_waiting()
    assert last_seq(registry) == 1
    assert (counted.parsed, counted.verified) == (2, 2)
    assert [report for report in reports if report.startswith("refused: bad_signature job ours seq 7")] == reports


@pytest.mark.parametrize("size", [0, 40_000], ids=["small", "large"])
@pytest.mark.parametrize("busy_at", ["accept_prechecked", "follow_in_feed"])
def test_a_busy_database_causes_no_second_parse_or_verification(
    registry: Registry,
    counted: Counted,
    consume: Callable[..., BrokerConsumer],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    busy_at: str,
) -> None:
    """The next attempt accepts the same batch; messages that arrive meanwhile wait behind it."""
    registry.register(agent="a", prompt="", job_id="ours")
    consumer = consume(*[line(registry, seq, detail="x" * size) for seq in (1, 2, 3)])
    done = getattr(registry.engine, busy_at)
    failures = iter([Busy("locked", waited_sec=1.0), Busy("locked", waited_sec=1.0)])

    def busy_twice(*arguments: Any, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return done(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(consumer._engine, busy_at, busy_twice)
        for _ in range(2):
            with pytest.raises(Busy):
                consumer._accept_waiting()
            assert len(consumer._inbox) == 3, "nothing leaves the inbox before it is accepted"
        consumer._inbox.put(
            Message(cast("Connection", None), 9, "jobdb/jobs/ours/events", line(registry, 4).encode(), False, 0)
        )
        consumer._accept_waiting()
    assert last_seq(registry) == 4 and len(consumer._inbox) == 0
    assert (counted.parsed, counted.verified) == (4, 4)


def test_a_busy_database_does_not_end_the_wait_for_the_brokers_answer(
    registry: Registry,
    consume: Callable[..., BrokerConsumer],
    monkeypatch: pytest.MonkeyPatch,
    reports: list[str],
) -> None:
    registry.register(agent="a", prompt="", job_id="ours")
    consumer = consume(line(registry, 1))

    def busy(*_: Any, **__: Any) -> Any:
        raise Busy("locked", waited_sec=1.0)

    with monkeypatch.context() as patched:
        patched.setattr(consumer._engine, "accept_prechecked", busy)
        consumer._accept_while_subscribing()
    assert reports == ["locked; trying again"] and len(consumer._inbox) == 1
