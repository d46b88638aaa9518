"""Test the cost of inputs in the worst shapes that were found: never much more than plain input of that size.

Processor time of this process, the least of some runs, against that of a plain input, the most of some runs; and memory
as Python counts it. The bound is wide: what it guards against were factors of a hundred and more, and quadratic time.
"""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobdb.cli import accept, inputs

from jobdb import InvalidInput, NewJob, Registry
from jobdb.core import arguments, registration
from jobdb.core.protocol import MAX_PAYLOAD_BYTES, MAX_VALUES, MalformedPayload, parse
from jobdb.core.protocol.topics import topic_matches
from jobdb.core.secrets import length_in_bits
from jobdb.engines.sql.precheck import precheck
from jobdb.model import Arrival
from jobdb.mqtt.settings import parse_broker_address
from jobdb.mqtt.ticket import read_ticket
from jobdb.urls import parse_url

MAX_TIME_RATIO = 20
LEAST_SEC = 0.002
"""Below this a plain input's time says nothing."""
MAX_MEMORY_RATIO = 30

HEAD = (
    '{"schema_version":1,"seq":1,"job_id":"j","event":"progress","timestamp":"2026-06-19T09:32:00Z","detail":"","data":'
)
CAPACITY = MAX_PAYLOAD_BYTES - len(HEAD) - 400  # the signature, and what a publisher adds


def repeated_values(
    item: str, *, most: int = MAX_VALUES - 20, capacity: int = CAPACITY, opened: str = "[", closed: str = "]"
) -> str:
    """Return as many of an item as fit, padded with text so that all have one size."""
    count = min(most, capacity // (len(item) + 1))
    listed = ",".join([item] * count)
    return f'{opened}{listed}{closed},"rest":"{"x" * (capacity - len(listed))}"'


def keys(count: int, name: str) -> str:
    return "{" + ",".join(f'"{name}{number}":1' for number in range(count)) + "}"


SUBNORMAL = "2.4703282292062327208" + "7" * 700 + "e-324"
SHAPES = {
    "floats": repeated_values("1.5"),
    "floats of 17 digits": repeated_values("0.12345678901234567"),
    "floats of 26 digits": repeated_values("1.234567890123456789012345"),
    "floats between two doubles": repeated_values("1.50000000000000011102230246251565404236316680908203125"),
    "subnormal floats of 700 digits": repeated_values(SUBNORMAL),
    "exponents": repeated_values("1e-9"),
    "one float as large as it can be": '0.{}1,"rest":""'.format("0" * (CAPACITY - 20)),
    "integers": repeated_values("9007199254740991"),
    "empty lists": repeated_values("[]"),
    "nested lists": repeated_values("[[[]]]", most=MAX_VALUES // 3 - 20),
    "objects": repeated_values('{"":0}', most=MAX_VALUES // 2 - 20),
    "many more lists than allowed": repeated_values("[[[]]]", most=10**9),
    "many more floats than allowed": repeated_values("1.5", most=10**9),
    "empty strings": repeated_values('""'),
    "keys": keys(MAX_VALUES - 20, "key"),
    "keys beyond ASCII": keys(MAX_VALUES - 20, "\u00e9"),
    "keys beyond the BMP, with floats": keys(MAX_VALUES - 20, "\U0001f600").replace(":1", ":1.5"),
    "a key that occurs twice at the end": keys(MAX_VALUES - 20, "key")[:-1] + ',"key0":1}',
    "control characters": f'"{chr(92)}u0001{(chr(92) + "u0001") * (CAPACITY // 6 - 4)}"',
    "quotation marks": f'"{(chr(92) + chr(34)) * (CAPACITY // 2 - 4)}"',
    "backslashes": f'"{(chr(92) * 2) * (CAPACITY // 2 - 4)}"',
    "surrogate pairs": '"{}"'.format("\\ud83d\\ude00" * (CAPACITY // 12)),
    "blanks": " " * CAPACITY + "1",
    "deep": "[" * (CAPACITY // 2) + "]" * (CAPACITY // 2),
    "deep objects": '{"a":' * (CAPACITY // 6) + "1" + "}" * (CAPACITY // 6),
    "commas in a text": '"{}"'.format("[,{," * (CAPACITY // 4)),
    "an integer of a quarter of a million digits": "1" * CAPACITY,
    "cut short": "[" + "1," * (CAPACITY // 2),
}
PLAIN = '"' + "a" * CAPACITY + '"'


def payload(value: str, *, job_id: str = "j", signature: str = "") -> bytes:
    signed = f',"hmac_sig":"{signature}"' if signature else ""
    return f'{HEAD.replace(chr(34) + "j" + chr(34), chr(34) + job_id + chr(34))}{{"x":{value}{signed}}}}}'.encode()


def cpu_seconds(work: Callable[[], object], runs: int = 3) -> list[float]:
    """Return the processor time of each run, shortest first."""
    found = []
    for _ in range(runs):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return sorted(found)


def is_cheap(work: Callable[[], object], plain: Callable[[], object]) -> bool:
    """Return whether ``work`` takes at most `MAX_TIME_RATIO` times as long as ``plain``; measure up to three times."""
    return any(cpu_seconds(work)[0] <= MAX_TIME_RATIO * max(LEAST_SEC, cpu_seconds(plain)[-1]) for _ in range(3))


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def parsed(raw: bytes) -> object:
    try:
        return parse(raw)
    except MalformedPayload:
        return None


@pytest.mark.parametrize("shape", SHAPES)
def test_cost_of_a_payload(shape: str) -> None:
    raw, plain = payload(SHAPES[shape]), payload(PLAIN)
    assert len(raw) <= MAX_PAYLOAD_BYTES
    assert is_cheap(lambda: parsed(raw), lambda: parsed(plain))
    assert peak_bytes(lambda: parsed(raw)) <= MAX_MEMORY_RATIO * MAX_PAYLOAD_BYTES


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "jobs.db", create=True, durability="normal") as opened:
        opened.register(agent="a", prompt="p", job_id="j")
        opened.register(agent="a", prompt="p", job_id="open", auth="never")
        yield opened


@pytest.mark.parametrize("shape", ["floats of 17 digits", "nested lists", "keys beyond ASCII", "objects"])
def test_cost_of_an_unauthentic_batch(registry: Registry, shape: str) -> None:
    """Its memory is that of a piece of it, however many there are."""
    raw, plain = payload(SHAPES[shape], signature="0" * 64), payload(PLAIN, signature="0" * 64)

    def accept(each: bytes, count: int) -> None:
        answers = registry.accept_many([each] * count, subscriber="s")
        assert {answer.verdict for answer in answers} == {"bad_signature"}

    assert is_cheap(lambda: accept(raw, 8), lambda: accept(plain, 8))
    few, many = peak_bytes(lambda: accept(raw, 8)), peak_bytes(lambda: accept(raw, 20))
    assert many < 2 * few


@pytest.mark.parametrize("shape", ["floats of 17 digits", "nested lists", "keys", "subnormal floats of 700 digits"])
def test_cost_of_publishing_and_reading_an_event(registry: Registry, shape: str) -> None:
    data, plain = json.loads(f'{{"x":{SHAPES[shape]}}}'), json.loads(f'{{"x":{PLAIN}}}')
    assert is_cheap(
        lambda: registry.publish("j", "progress", data=data), lambda: registry.publish("open", "progress", data=plain)
    )
    assert is_cheap(lambda: registry.events("j", limit=3), lambda: registry.events("open", limit=3))


MIB = 1_048_576
_WIDE_KEYS = ",".join(f'"{number}":0' for number in range(30_000))
OBJECTS = {
    "a name that is there twice": "{" + ",".join(f'"k{number}":1' for number in range(40_000)) + ',"k39999":1}',
    "many names": "{" + _WIDE_KEYS + "}",
    "nested": '{"x":[' + ",".join(["[[[]]]"] * 140_000) + "]}",
    "floats": '{"x":[' + ",".join(["1.5"] * 240_000) + "]}",
    "integers of 4000 digits": '{"x":[' + ",".join(["1" * 4000] * 250) + "]}",
    "an integer of a million digits": '{"x":' + "1" * 1_000_000 + "}",
    "deep": '{"x":' + "[" * 500_000 + "]" * 500_000 + "}",
    "escapes": '{"x":"' + "\\u0001" * 170_000 + '"}',
}


@pytest.mark.parametrize("shape", OBJECTS)
def test_cost_of_json_on_the_command_line(shape: str) -> None:
    text, plain = OBJECTS[shape], '{"x":"' + "a" * (MIB - 20) + '"}'

    def read(one: str) -> None:
        try:
            registration.json_object("extra", inputs.parse_json_object(one, option="--data"))
        except InvalidInput as problem:
            assert len(str(problem)) < 500

    assert is_cheap(lambda: read(text), lambda: read(plain))
    assert peak_bytes(lambda: read(text)) <= 60 * MIB


LONG = 100_000
TEXTS: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "a URL": (
        lambda text: str(parse_url(text)),
        [
            "postgresql://" + "?password=" * 10_000,
            "postgresql://" + ":@" * LONG,
            "sqlite:///" + "/" * LONG,
            "postgres:" * 10_000,
            "&password=&" * 10_000,
        ],
    ),
    "a broker's address": (
        parse_broker_address,
        [
            ":" * LONG,
            ":@" * LONG,
            "[" * LONG,
            "h:" + "9" * LONG,
            "%41" * LONG,
            "mqtt://" + "/" * LONG,
            "h" * LONG + "\n",
        ],
    ),
    "a duration": (
        lambda text: inputs.parse_duration(text, option="--since"),
        ["9" * LONG, "9" * LONG + "d", "9" * 400 + "w", "." * LONG, "0." + "0" * LONG],
    ),
    "a job id": (arguments.job_id, ["a" * LONG, "a" * 128 + "\n", "." * LONG, "-" * 128]),
    "a topic": (registration.topic_prefix, ["/" * LONG, "a/" * LONG, "+" * LONG]),
    "a token": (length_in_bits, ["a" * LONG + "=", "a" * LONG + "!", "=" * LONG, "0f" * LONG + "g"]),
    "a filter and a topic": (lambda text: topic_matches(text, text), ["+/" * LONG, "/" * LONG, "#/" * LONG]),
}


@pytest.mark.parametrize("what", TEXTS)
def test_cost_of_matching_patterns(what: str) -> None:
    """None of them takes long, where a backtracking pattern would take minutes."""
    read, worst = TEXTS[what]

    def run() -> None:
        for text in worst:
            try:
                read(text)
            except InvalidInput as problem:
                assert len(str(problem)) < 2000 or what == "a URL"

    assert is_cheap(run, lambda: time.sleep(0) or sum(range(100_000)))


@pytest.mark.parametrize(
    "content", ["[" * 500_000, '{"a":' * 100_000, "1" * 1_000_000, '{"broker":' + "[[[]]]," * 90_000]
)
def test_cost_of_a_ticket_file(tmp_path: Path, content: str) -> None:
    place = tmp_path / "job.ticket"
    place.write_text(content)
    place.chmod(0o600)
    with pytest.raises(InvalidInput, match="ticket"):
        read_ticket(place)


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_cost_of_a_line_that_arrives_in_pieces(piece: int) -> None:
    """Its beginning was copied for each of them."""
    line = b"x" * (MAX_PAYLOAD_BYTES // 8)

    def read(size: int) -> None:
        reader, writer = os.pipe()
        pieces = iter([line[at : at + size] for at in range(0, len(line), size)] + [b"\nlast\r"])
        original = os.read

        def read_piece(descriptor: int, most: int) -> bytes:
            return next(pieces, b"") if descriptor == reader else original(descriptor, most)

        os.read = read_piece
        try:
            assert list(accept._batches(reader)) == [[line], [b"last"]]
        finally:
            os.read = original
            os.close(reader)
            os.close(writer)

    count = len(line) // piece
    assert is_cheap(lambda: read(piece), lambda: [bytes(piece) for _ in range(count * 4)])


def test_cost_of_registering_jobs_in_bulk() -> None:
    """Checking them takes time in proportion to their number."""
    jobs = [NewJob(agent="a", prompt="p" * 100, extra={"n": number}) for number in range(4000)]
    assert is_cheap(
        lambda: [registration.new_job(job) for job in jobs], lambda: [json.dumps(job.extra) for job in jobs * 2]
    )


def test_cost_of_events_of_many_unknown_jobs(registry: Registry) -> None:
    """Each is looked up once, and only a count stays."""
    arrivals = [Arrival(payload('"' + "a" * 200 + '"', job_id=f"job{number}")) for number in range(2000)]
    engine = registry.engine
    prechecked = precheck(engine.store, engine.vault, arrivals)
    assert {each.refusal.verdict if each.refusal else None for each in prechecked} == {"unknown_job"}
    assert registry.accept_many(arrivals, subscriber="s")[-1].verdict == "unknown_job"
    assert registry.verdict_counts() == {"unknown_job": 2000}


def test_cost_of_lines_that_are_not_events(tmp_path: Path) -> None:
    """They are answered in few transactions: each waits for the disk."""
    junk = tmp_path / "junk"
    junk.write_bytes(b"{}\n" * 100_000)
    descriptor = os.open(junk, os.O_RDONLY)
    try:
        batches = [len(lines) for lines in accept._batches(descriptor)]
    finally:
        os.close(descriptor)
    assert sum(batches) == 100_000 and len(batches) < 30 and max(batches) <= 5_000
