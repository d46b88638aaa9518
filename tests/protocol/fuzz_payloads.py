"""Fuzz payloads by the million: none may verify unless its content is still what was signed, and nothing may raise.

    python tests/protocol/fuzz_payloads.py --count 1000000 --seed 1                     parse and verify
    python tests/protocol/fuzz_payloads.py --count 1000000 --seed 1 --registry DIR      accept, in a database made there

Prints the outcomes, with the slowest payload's time and the growth of memory. Exits with 1 on the first failure, whose
payload and seed are printed. A short version runs with the other tests.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobdb import Registry
from jobdb.core.protocol import MalformedPayload, UnsupportedVersion, WireEvent, build, parse, sign, verify
from jobdb.crypto.master_key import MasterKey
from jobdb.crypto.vault import Vault
from jobdb.model import Arrival, EventKind, Verdict

JOBS = ("abc12345", "def67890")
TOKENS = {(job, kid): f"token-{job}-{kid}-" + "0123456789abcdef" * 2 for job in JOBS for kid in (1, 2)}
MAX_GROWTH_KIB = 64 * 1024
_HOSTILE: tuple[str, ...] = (
    "null", "true", "false", "0", "1", "-1", "1.0", "1e0", "-0.0", "1e400", "01", "NaN", "-Infinity", '""', '"1"', "[]",
    "{}", "[[]]", '{"hmac_sig":1}', "9007199254740991", "9007199254740992", "1" + "0" * 5000, '"\\ud800"', '"\\u0000"',
    '"\ud7ff\U0001f389"', '"abc12345"', '"def67890"', '"completed"', '"1\\n"', '"' + "x" * 70_000 + '"',
)  # fmt: skip
_NAMES = (
    "schema_version", "seq", "job_id", "event", "timestamp", "detail", "data", "attempt", "hmac_kid", "hmac_sig", "pct",
)  # fmt: skip


class Failure(AssertionError):
    """A payload was accepted that should not have been, or an exception was raised."""


@dataclass
class Corpus:
    """Genuine events of two jobs, each with two tokens, and what each token has signed."""

    events: list[WireEvent]
    signed: dict[str, set[bytes]]

    @classmethod
    def make(cls) -> Corpus:
        datas: list[dict[str, Any]] = [
            {},
            {"pct": 30},
            {"x": [1, {"b": None, "a": [True, 0.5]}], "\U0001f600": 1, "\ufb33": 2},
        ]
        events = [
            build(
                job_id=job,
                seq=seq,
                event=EventKind.PROGRESS,
                timestamp="2026-06-19T09:32:00Z",
                detail=f"step {seq} \u00e9\U0001f389" if seq % 2 else "step",
                data=datas[seq % 3],
                attempt=1,
                kid=kid,
                token=token,
            )
            for (job, kid), token in TOKENS.items()
            for seq in range(1, 7)
        ]
        signed = {token: {e.message for e in events if (e.job_id, e.kid) == key} for key, token in TOKENS.items()}
        return cls(events, signed)

    def payloads(self, count: int, seed: int) -> Iterator[bytes | str | dict[str, Any]]:
        rng = random.Random(seed)
        for _ in range(count):
            text = rng.choice(self.events).text
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                text = rng.choice(_TEXT_MUTATIONS)(text, rng, self)
            yield _as_received(text, rng)


def _as_received(text: str, rng: random.Random) -> bytes | str | dict[str, Any]:
    """Return the payload mostly as bytes, most of them damaged; now and then as text or as an object."""
    kind = rng.random()
    if kind < 0.05:
        return text
    if kind < 0.10:
        with contextlib.suppress(ValueError, RecursionError):
            decoded = json.loads(text)
            if isinstance(decoded, dict):
                return decoded
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    if kind < 0.30 and raw:
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(raw))
            change = rng.randrange(4)
            if change == 0:
                raw[at] ^= 1 << rng.randrange(8)
            elif change == 1:
                raw[at] = rng.randrange(256)
            elif change == 2:
                raw.insert(at, rng.randrange(256))
            elif len(raw) > 1:
                del raw[at]
    return bytes(raw)


def _replace_value(text: str, rng: random.Random, _: Corpus) -> str:
    """Replace one field's value by a hostile one."""
    start, end = _value_span(text, rng.choice(_NAMES))
    return text[:start] + rng.choice(_HOSTILE) + text[end:]


def _value_span(text: str, name: str) -> tuple[int, int]:
    at = text.find(f'"{name}":')
    if at < 0:
        return len(text), len(text)
    start = at + len(name) + 3
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        end = start
    return start, end


def _repeat_key(text: str, rng: random.Random, _: Corpus) -> str:
    name = rng.choice(_NAMES)
    start, end = _value_span(text, name)
    value = rng.choice((text[start:end] or "1", rng.choice(_HOSTILE)))
    spelt = name if rng.random() < 0.7 else f"\\u{ord(name[0]):04x}{name[1:]}"
    return text[:end] + f',"{spelt}":{value}' + text[end:]


def _rename_key(text: str, rng: random.Random, _: Corpus) -> str:
    return text.replace(f'"{rng.choice(_NAMES)}":', f'"{rng.choice((*_NAMES, "x", ""))}":', 1)


def _truncate(text: str, rng: random.Random, _: Corpus) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _nest(text: str, rng: random.Random, _: Corpus) -> str:
    depth = rng.choice((1, 5, 61, 62, 63, 64, 200, 3000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    start, end = _value_span(text, rng.choice(_NAMES))
    return text[:start] + opening * depth + (text[start:end] or "1") + closing * depth + text[end:]


def _other_signature(text: str, rng: random.Random, corpus: Corpus) -> str:
    start, end = _value_span(text, "hmac_sig")
    signature = rng.choice(corpus.events).signature or ""
    changed = rng.choice((signature, signature.upper(), signature[:-1], signature + " ", "", "0" * 64, "\uff10" * 64))
    return text[:start] + json.dumps(changed) + text[end:]


def _foreign_token(text: str, rng: random.Random, _: Corpus) -> str:
    """Sign correctly, with a token that this job and key do not have."""
    with contextlib.suppress(MalformedPayload, UnsupportedVersion, RecursionError):
        event = parse(text)
        token = rng.choice([token for key, token in TOKENS.items() if key != (event.job_id, event.kid)])
        start, end = _value_span(text, "hmac_sig")
        return f'{text[:start]}"{sign(event.message, token)}"{text[end:]}'
    return text


def _other_number(text: str, rng: random.Random, _: Corpus) -> str:
    name = rng.choice(("seq", "seq", "attempt", "hmac_kid", "pct", "schema_version"))
    start, end = _value_span(text, name)
    return text[:start] + str(rng.choice((0, 1, 2, 3, 7, -1, 2**31, 2**53 - 1, 2**53))) + text[end:]


def _replace_field(text: str, rng: random.Random, _: Corpus) -> str:
    """Swap in another field of the same shape: well formed, and not what was signed."""
    old, new = rng.choice(
        (("step", "stop"), ("progress", "completed"), ("T09", "T10"), (JOBS[0], JOBS[1]), ('"x"', '"y"'))
    )
    return text.replace(old, new, 1)


def _respell(text: str, rng: random.Random, _: Corpus) -> str:
    """Write the same values in another notation, which must still verify."""
    with contextlib.suppress(ValueError, RecursionError):
        decoded = json.loads(text)
        indent = rng.choice((None, None, 1))
        return json.dumps(decoded, ensure_ascii=rng.random() < 0.5, indent=indent, sort_keys=rng.random() < 0.5)
    return text


def _splice(text: str, rng: random.Random, corpus: Corpus) -> str:
    other = rng.choice(corpus.events).text
    return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]


def _characters(text: str, rng: random.Random, _: Corpus) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(('"', "\\", ",", ":", "}", "0", " ", "\n", "\0", "\ufeff", "\ud800", "e")) + text[at:]


def _grow(text: str, rng: random.Random, _: Corpus) -> str:
    return text + " " * max(0, rng.choice((1, 262_144, 262_145)) - len(text))


Mutation = Callable[[str, random.Random, Corpus], str]
_TEXT_MUTATIONS: tuple[Mutation, ...] = (
    _replace_value, _replace_value, _replace_value, _repeat_key, _repeat_key, _rename_key, _rename_key, _truncate,
    _nest, _other_signature, _other_signature, _foreign_token, _other_number, _other_number, _other_number,
    _replace_field, _replace_field, _replace_field, _respell, _respell, _respell, _splice, _splice,
    _characters, _characters, _characters,
) * 4 + (_grow,)  # fmt: skip


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_sec: float = 0.0
    growth_kib: int = 0


def examine(payload: Any, corpus: Corpus) -> str:
    """Parse and verify one payload; return the outcome.

    Raises:
        Failure: it verifies and is not what was signed, or something else than the two refusals was raised.
    """
    try:
        event = parse(payload)
    except MalformedPayload as refusal:
        if len(refusal.reason) > 120:
            raise Failure("a reason that is no short sentence") from refusal
        return "malformed"
    except UnsupportedVersion:
        return "unsupported_version"
    except BaseException as problem:
        raise Failure(f"parse raised {problem!r:.200}") from problem
    token = TOKENS.get((event.job_id, event.kid))
    if token is None:
        return "no_such_key"
    if not verify(event, token, legacy=True):
        return "bad_signature"
    if event.message not in corpus.signed[token]:
        raise Failure("it verifies, and nobody has signed it")
    return "verified"


def fuzz_protocol(count: int, seed: int) -> Report:
    """Parse and verify ``count`` mutated payloads."""
    corpus, report = Corpus.make(), Report()
    before = 0
    for number, payload in enumerate(corpus.payloads(count, seed)):
        if number == count // 5:
            before = _peak_kib()
        started = time.perf_counter()
        try:
            report.outcomes[examine(payload, corpus)] += 1
        except Failure as failure:
            raise Failure(f"{failure}; seed {seed}, payload {number}: {str(payload)[:2000]}") from failure
        report.slowest_sec = max(report.slowest_sec, time.perf_counter() - started)
    report.growth_kib = _peak_kib() - before
    return report


def fuzz_registry(count: int, seed: int, folder: Path, *, batch: int = 256) -> Report:
    """Pass ``count`` mutated payloads to ``accept_many`` of a registry that is made in ``folder``."""
    corpus, report = Corpus.make(), Report()
    genuine = set().union(*corpus.signed.values())
    vault = Vault(MasterKey(b"fuzz" * 8, "the fuzzer"))
    with Registry.open(folder / "fuzz.db", create=True, durability="normal", vault=vault) as registry:
        for job in JOBS:
            registry.register(agent="human", prompt="", job_id=job, auth_token=TOKENS[job, 1])
            registry.tokens.rotate(job, overlap_sec=86_400, token=TOKENS[job, 2])
            registry.claim(worker="fuzzer", job_id=job, lease_sec=None)
        payloads = corpus.payloads(count, seed)
        before = done = 0
        while pending := list(itertools.islice(payloads, batch)):
            started = time.perf_counter()
            answers = registry.accept_many([Arrival(payload) for payload in pending], subscriber="fuzzer", window=9)
            report.slowest_sec = max(report.slowest_sec, (time.perf_counter() - started) / batch)
            for payload, answer in zip(pending, answers, strict=True):
                if answer.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE) and parse(payload).message not in genuine:
                    raise Failure(f"{answer.verdict}: seed {seed}: {str(payload)[:2000]}")
                report.outcomes[answer.verdict.value] += 1
            if done < count // 5 <= done + len(pending):
                before = _peak_kib()
            done += len(pending)
        report.growth_kib = _peak_kib() - before
        if any(registry.get(job).terminal for job in JOBS):
            raise Failure("a job was moved by a payload that nobody has signed")
    return report


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--registry", type=Path, metavar="DIR", help="go through accept, in a new database in DIR")
    arguments = parser.parse_args()
    try:
        if arguments.registry:
            report = fuzz_registry(arguments.count, arguments.seed, arguments.registry)
        else:
            report = fuzz_protocol(arguments.count, arguments.seed)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    print(json.dumps(dict(report.outcomes)), f"slowest {report.slowest_sec * 1000:.1f} ms", end=" ")
    print(f"memory +{report.growth_kib} KiB")
    return 1 if report.growth_kib > MAX_GROWTH_KIB else 0


if __name__ == "__main__":
    raise SystemExit(main())
