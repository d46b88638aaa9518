"""Measure events over a real broker: publish → relay → Mosquitto → subscriber → accepted, at full durability.

Called by __main__.py, and alone as ``python -m benchmarks.mqtt_throughput``. Publisher, relay and subscriber are three
processes on one database; Mosquitto is started on loopback with the settings of docs/how-to/deploy-mqtt.md. It measures
the events per second from publish to accepted and, for one event at a time, the share of each stage. All processes
read the same monotonic clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .latencies import spread

if TYPE_CHECKING:
    from jobdb import Registry

STAGES = {
    "publish": "signed, recorded and synced",
    "relay": "found in the outbox and handed to the network",
    "broker": "to the broker and from it to the subscriber",
    "accept": "verified, checked for replay, recorded and synced",
}
_SEC = 60.0
_JOBS = 10
_CONFIGURATION = """listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
max_inflight_messages 500
max_queued_messages 0
"""


def reason_unavailable() -> str | None:
    """Return why this cannot be measured here; None when it can."""
    if _mosquitto() is None:
        return "Mosquitto is not installed"
    try:
        import paho.mqtt.client  # noqa: F401
    except ImportError:
        return "paho-mqtt is not installed"
    return None


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


@contextmanager
def _broker(folder: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    program = _mosquitto()
    assert program is not None
    user = "user root\n" if os.geteuid() == 0 else ""
    (folder / "mosquitto.conf").write_text(user + _CONFIGURATION.format(port=port, folder=folder), "utf-8")
    process = subprocess.Popen(
        [program, "-c", str(folder / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + _SEC
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(_SEC)


def _open(folder: Path, *, create: bool = False) -> Registry:
    from jobdb import Registry

    from .adapters.jobdb import benchmark_vault

    return Registry.open(f"sqlite:///{folder / 'mqtt.db'}", create=create, vault=benchmark_vault(folder))


def _relay(folder: Path, pipe: Connection) -> None:
    """Deliver events, and record when each was handed to the network."""
    import threading

    from jobdb.mqtt import Environment, RegistryOutbox, Relay
    from jobdb.mqtt.connection import Connection as Mqtt

    handed: dict[tuple[str, int], int] = {}
    publish = Mqtt.publish

    def record_time(self: Mqtt, topic: str, payload: str, *, retain: bool) -> int:
        mid = publish(self, topic, payload, retain=retain)
        now = time.monotonic_ns()
        event = json.loads(payload)
        handed[event["job_id"], event["seq"]] = now
        return mid

    Mqtt.publish = record_time  # type: ignore[method-assign]
    with _open(folder) as registry:
        outbox = RegistryOutbox(registry.engine, environment=Environment.read({}), report=lambda text: None)
        relay = Relay(outbox, report=lambda text: None)
        thread = threading.Thread(target=relay.run)
        thread.start()
        pipe.send("ready")
        pipe.recv()
        relay.stop()
        thread.join(_SEC)
    pipe.send(handed)


def _subscriber(folder: Path, port: int, pipe: Connection) -> None:
    """Accept events, and record when each arrived and when its acceptance was durable. Nothing is handled."""
    from jobdb.mqtt import BrokerSettings, subscribe
    from jobdb.mqtt.connection import Message
    from jobdb.mqtt.consumer import BrokerConsumer

    arrived: dict[tuple[str, int], int] = {}
    accepted: dict[tuple[str, int], int] = {}
    enqueue = BrokerConsumer._enqueue

    def record_time(self: BrokerConsumer, message: Message) -> None:
        now = time.monotonic_ns()
        enqueue(self, message)
        event = json.loads(message.payload)
        arrived[event["job_id"], event["seq"]] = now

    BrokerConsumer._enqueue = record_time  # type: ignore[method-assign]
    with _open(folder) as registry:

        def report(text: str) -> None:
            if text.startswith("subscribed to"):
                pipe.send("ready")

        def note(answer: Any) -> None:
            accepted[answer.job_id, answer.seq] = time.monotonic_ns()

        settings = BrokerSettings("127.0.0.1", port)
        with subscribe(
            registry, subscriber="benchmark", settings=settings, report=report, on_accepted=note, grace_sec=600
        ):
            while (wanted := pipe.recv()) is not None:
                deadline = time.monotonic() + _SEC
                while len(accepted) < wanted and time.monotonic() < deadline:
                    time.sleep(0.0005)
                pipe.send(len(accepted))
    pipe.send((arrived, accepted))


def measure(folder: Path, events: int, single: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Return the events per second from publish to accepted, and each stage's milliseconds and share for one event.

    Args:
        folder: where the database and the broker's store are, on a disk.
        events: the number of events that are published as fast as possible.
        single: the number of events that are published one at a time.
        say: is called with lines about the progress.
    """
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with _broker(folder) as port, _open(folder, create=True) as registry:
        jobs = _jobs(registry, port)
        relay_pipe, relay_end = context.Pipe()
        subscriber_pipe, subscriber_end = context.Pipe()
        workers = [
            context.Process(target=_relay, args=(folder, relay_end), daemon=True),
            context.Process(target=_subscriber, args=(folder, port, subscriber_end), daemon=True),
        ]
        for worker in workers:
            worker.start()
        try:
            _receive(relay_pipe)
            _receive(subscriber_pipe)
            began, published, sent = _one_by_one(registry, jobs, single, subscriber_pipe)
            say(f"{single} events one by one")
            rates = _all_at_once(registry, jobs, events, sent, subscriber_pipe)
            say(f"{events} events as fast as they go")
            subscriber_pipe.send(None)
            arrived, accepted = _receive(subscriber_pipe)
            relay_pipe.send(None)
            handed = _receive(relay_pipe)
        finally:
            for worker in workers:
                worker.join(5)
                if worker.is_alive():
                    worker.terminate()
    return rates | _stages(began, published, handed, arrived, accepted)


def _jobs(registry: Registry, port: int) -> list[str]:
    from jobdb import Broker, NewJob

    broker = Broker("127.0.0.1", port)
    made = registry.register_many([NewJob(agent="benchmark", prompt="p", broker=broker) for _ in range(_JOBS)])
    for job in made:
        registry.claim(worker="benchmark", job_id=job.job_id, lease_sec=None)
    return [job.job_id for job in made]


def _one_by_one(
    registry: Registry, jobs: list[str], times: int, pipe: Connection
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int], int]:
    """Publish one event at a time and wait for its acceptance; the first ones, a warm-up, are left out."""
    began, published = {}, {}
    warm_up = 10
    for number in range(times + warm_up):
        job_id = jobs[number % len(jobs)]
        start = time.monotonic_ns()
        event = registry.publish(job_id, "progress", detail="step", attempt=1)
        end = time.monotonic_ns()
        if number >= warm_up:
            began[job_id, event.seq], published[job_id, event.seq] = start, end
        pipe.send(number + 1)
        _expect(_receive(pipe), number + 1)
        time.sleep(0.02)
    return began, published, times + warm_up


def _all_at_once(registry: Registry, jobs: list[str], events: int, before: int, pipe: Connection) -> dict[str, Any]:
    """Publish events one per transaction while the relay and the subscriber keep up as they can."""
    start = time.monotonic()
    for number in range(events):
        registry.publish(jobs[number % len(jobs)], "progress", detail="step", attempt=1)
    published = time.monotonic()
    pipe.send(before + events)
    _expect(_receive(pipe), before + events)
    done = time.monotonic()
    return {
        "events": events,
        "events_per_sec": events / (done - start),
        "published_per_sec": events / (published - start),
    }


def _stages(
    began: dict[tuple[str, int], int],
    published: dict[tuple[str, int], int],
    handed: dict[tuple[str, int], int],
    arrived: dict[tuple[str, int], int],
    accepted: dict[tuple[str, int], int],
) -> dict[str, Any]:
    taken: dict[str, list[float]] = {name: [] for name in STAGES}
    whole = []
    for key, start in began.items():
        # The relay may have taken an event before its publisher is scheduled again: then the event did not wait.
        ready = min(published[key], handed[key])
        points = (start, ready, handed[key], arrived[key], accepted[key])
        for name, here, there in zip(STAGES, points, points[1:], strict=False):
            taken[name].append(max(0, there - here) / 1e6)
        whole.append((accepted[key] - start) / 1e6)
    total = sum(statistics.median(values) for values in taken.values())
    stages = {name: spread(values) | {"share": statistics.median(values) / total} for name, values in taken.items()}
    return {"way_ms": spread(whole), "stages_ms": stages}


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(2 * _SEC):
        raise TimeoutError("a process of the measurement did not answer")
    return pipe.recv()


def _expect(accepted: int, wanted: int) -> None:
    if accepted < wanted:
        raise TimeoutError(f"{accepted} of {wanted} events were accepted in time")


def lines(found: dict[str, Any]) -> list[str]:
    """Return the result as a table, for the report."""
    rows = []
    for name, one in found["stages_ms"].items():
        reach = f"{one['min']:.2f}–{one['max']:.2f} ms"
        rows.append(f"| {name} | {STAGES[name]} | {one['median']:.2f} ms | {reach} | {one['share']:.0%} |")
    return [
        "## Over MQTT",
        "",
        f"One publisher, one relay, one subscriber, Mosquitto on loopback: {found['events_per_sec']:,.0f} events/s "
        f"from publish to accepted ({found['events']:,} events, one per transaction; published at "
        f"{found['published_per_sec']:,.0f}/s). One event at a time takes {found['way_ms']['median']:.1f} ms:",
        "",
        "| stage | what is done | median | lowest–highest | share |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mqtt_throughput", description=__doc__)
    parser.add_argument("--events", type=int, default=3000)
    parser.add_argument("--single", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path("build"), help="a folder on a disk")
    arguments = parser.parse_args()
    if reason := reason_unavailable():
        parser.error(reason)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mqtt-", dir=arguments.folder)).resolve()
    try:
        found = measure(folder, arguments.events, arguments.single, lambda text: print(text, file=sys.stderr))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    # Workers are spawned with ``python -c``, which would look for its modules in the current folder first.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    sys.exit(main())
