"""Write schema/vectors.json, the test vectors of docs/job-protocol.md, or ``--check`` that it is up to date.

The expected verdicts are written here by hand, from the document. Canonical forms come from the ``rfc8785`` package and
signatures from the standard library: nothing here calls jobdb, so that the vectors can contradict it.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

import rfc8785
from vector_material import CONTEXTS, Case
from vector_payload_cases import canonical_cases, malformed_cases, version_cases
from vector_verdict_cases import identity_cases, replay_cases

TARGET = Path(__file__).resolve().parents[2] / "schema" / "vectors.json"

ABOUT = (
    "Test vectors of the job protocol, schema_version 1; docs/job-protocol.md explains every field. "
    "payload is the text of the message, payload_base64 its bytes, payload_parts text pieces, each repeated. "
    "signature is what the token that the event names gives over canonical; the payload may hold another one. "
    "In a context, recorded lists the events that the registry holds, accepted those of them that the subscriber "
    "has accepted, and ended the seq after which the job is over."
)


def digest(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def canonical(payload: dict[str, Any]) -> bytes:
    data = payload.get("data")
    if isinstance(data, dict):
        payload = {**payload, "data": {key: value for key, value in data.items() if key != "hmac_sig"}}
    return rfc8785.dumps(payload)


def vector(case: Case) -> dict[str, Any]:
    """Return a case as the file holds it."""
    made: dict[str, Any] = {"name": case.name, "context": case.context, **case.payload_fields()}
    if case.topic is not None:
        made["topic"] = case.topic
    made["canonical"] = made["digest"] = made["signature"] = None
    if case.verdict not in ("malformed", "unsupported_version"):
        payload = json.loads(case.raw())
        message = canonical(payload)
        if case.canonical is not None and message != case.canonical.encode():
            raise AssertionError(f"{case.name}: the canonical form is not the one expected: {message!r}")
        if len(message) > 20_000:
            made["canonical_sha256_only"] = True
        else:
            made["canonical"] = message.decode()
        made["digest"] = digest(message)
        kid = payload["data"].get("hmac_kid", 1)
        for token in CONTEXTS[case.context]["tokens"]:
            if token["kid"] == kid:
                made["signature"] = hmac.digest(token["token"].encode(), message, "sha256").hex()
    made["verdict"] = case.verdict
    if case.rule:
        made["rule"] = case.rule
    if case.missing:
        made["missing"] = list(case.missing)
    return made


def document() -> str:
    """Return the whole file. ASCII only, so that no editor can change its meaning."""
    cases = [*canonical_cases(), *malformed_cases(), *version_cases(), *identity_cases(), *replay_cases()]
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise AssertionError(f"a name occurs twice: {sorted(n for n in names if names.count(n) > 1)}")
    lines = ",\n".join("  " + json.dumps(vector(case)) for case in cases)
    contexts = ",\n".join(f"  {json.dumps(name)}: {json.dumps(context)}" for name, context in CONTEXTS.items())
    return (
        f'{{\n"about": {json.dumps(ABOUT)},\n"schema_version": 1,\n'
        f'"contexts": {{\n{contexts}\n}},\n"vectors": [\n{lines}\n]\n}}\n'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file differs")
    arguments = parser.parse_args()
    made = document()
    if arguments.check:
        return 0 if TARGET.read_text("ascii") == made else 1
    TARGET.write_text(made, "ascii")
    print(f"{TARGET}: {made.count(chr(10)) - 8} lines", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
